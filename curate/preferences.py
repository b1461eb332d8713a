"""Preference pairs from files and from the hub, whatever their layout."""

from dataclasses import astuple, dataclass
from typing import Any

from curate.reading import records


@dataclass(frozen=True)
class Preference:
    """Two responses to a request, of which people preferred the first."""

    instruction: str
    input: str
    chosen: str
    rejected: str


def read_preferences(source: str, key: str, *, unescape: bool = False) -> list[Preference]:
    r"""The pairs of a file or of `hub:NAME`; `key` is the config's, for messages.

    A row has a prompt, a chosen and a rejected response (text, or a conversation that ends with it), or the columns
    src, pos and neg, whose texts may be marked "Instruction:", "Input:" and "Response:" (the layout of Ge et al. 2024,
    arXiv:2402.18191). Rows that lack a part are left out. Raises UserError if the source cannot be read.

    With `unescape` every \n, \t and \" that is written out is put back. Where one side of a file was escaped once more
    than the other, a backslash tells which side a response is of: in a third of the car pairs of that paper only the
    original response has one.
    """
    pairs = [pair for _, row in records(source, key) if (pair := _preference(row))]
    return [Preference(*map(_unescaped, astuple(pair))) for pair in pairs] if unescape else pairs


def _preference(row: Any) -> Preference | None:
    if not isinstance(row, dict):
        return None
    asked = str(row.get("src") or row.get("prompt") or row.get("instruction") or "")
    instruction, _, given = asked.removeprefix("Instruction:").partition("Input:")
    answers = (row.get("pos") or row.get("chosen"), row.get("neg") or row.get("rejected"))
    chosen, rejected = (_text(answer).removeprefix("Response:").strip() for answer in answers)
    if not (instruction.strip() and chosen and rejected):
        return None
    return Preference(instruction.strip(), given.strip() or str(row.get("input") or ""), chosen, rejected)


def _text(answer: Any) -> str:
    """A response as text: itself, or the last turn of a conversation."""
    if isinstance(answer, list) and answer and isinstance(answer[-1], dict):
        answer = answer[-1].get("content")
    return answer if isinstance(answer, str) else ""


def _unescaped(text: str) -> str:
    return text.replace("\\n", "\n").replace("\\t", "\t").replace('\\"', '"')
