"""Does a model do what it is told? Short instructions whose fulfilment a program can see.

After IFEval (Zhou et al. 2023, arXiv:2311.07911), with instructions of our own that a small model can answer in some
forty tokens: length, layout, case, words to use or to leave out. Right or wrong content plays no part.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

NEW_TOKENS = 48  # of an answer; what is longer is cut

Verifier = Callable[[str], bool]


def words(least: int, most: int) -> Verifier:
    """From `least` to `most` words."""
    return lambda text: least <= len(text.split()) <= most


def sentences(n: int) -> Verifier:
    """Exactly `n` sentences, each ended by a mark."""
    return lambda text: len(re.findall(r"[^.!?]*\w[^.!?]*[.!?]+", text)) == n and text.rstrip()[-1:] in tuple(".!?")


def bullets(n: int) -> Verifier:
    """Exactly `n` lines that begin with - or *."""
    return lambda text: len(re.findall(r"^\s*[-*] +\S", text, re.MULTILINE)) == n


def numbered(n: int) -> Verifier:
    """Exactly `n` lines numbered from 1 on."""
    return lambda text: re.findall(r"^\s*(\d+)[.)] +\S", text, re.MULTILINE) == [str(i) for i in range(1, n + 1)]


def lower(text: str) -> bool:
    """No capital letter, and some letter."""
    return text == text.lower() != text.upper()


def upper(text: str) -> bool:
    """Capital letters only."""
    return text == text.upper() != text.lower()


def uses(*needed: str) -> Verifier:
    """Every one of these words, in any case."""
    return lambda text: all(re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in needed)


def avoids(*banned: str) -> Verifier:
    """None of these words or marks, and something said."""
    return lambda text: bool(text.strip()) and not any(mark in text.lower() for mark in banned)


def begins(start: str) -> Verifier:
    """This at the beginning."""
    return lambda text: text.startswith(start)


def ends(end: str) -> Verifier:
    """This at the end."""
    return lambda text: text.rstrip().endswith(end)


def is_json(text: str) -> bool:
    """One JSON object and nothing else."""
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def listed(n: int) -> Verifier:
    """Exactly `n` parts between commas, none of them empty."""
    return lambda text: [bool(part.strip()) for part in text.strip().rstrip(".").split(",")] == [True] * n


@dataclass(frozen=True)
class Check:
    """An instruction and what must hold of the answer."""

    instruction: str
    holds: tuple[Verifier, ...]


CHECKS = (
    Check("Answer in one word: what is the color of grass?", (words(1, 1),)),
    Check("Name an animal that can fly. Use one word only.", (words(1, 1),)),
    Check("Describe the sea in exactly one sentence.", (sentences(1),)),
    Check("Explain in exactly two sentences why people sleep.", (sentences(2),)),
    Check("Say what a library is in at most ten words.", (words(1, 10),)),
    Check("Write at least twenty words about the moon.", (words(20, 10_000),)),
    Check("List exactly three fruits, each on its own line that begins with a dash (-).", (bullets(3),)),
    Check("List exactly two tools for cooking, each on its own line that begins with a dash (-).", (bullets(2),)),
    Check("Give a numbered list of exactly three countries in Europe.", (numbered(3),)),
    Check("Give a numbered list of exactly two steps to make tea.", (numbered(2),)),
    Check("Write one sentence about winter in lowercase letters only, without any capital letter.", (lower,)),
    Check("Name a planet. Write in lowercase letters only.", (lower,)),
    Check("Say hello to a friend. USE CAPITAL LETTERS ONLY.", (upper,)),
    Check("Name a large city in CAPITAL LETTERS ONLY.", (upper,)),
    Check("Write a sentence that holds the words river and stone.", (uses("river", "stone"),)),
    Check("Write a sentence about breakfast that holds the word honey.", (uses("honey"),)),
    Check("Describe a dog without using the letter z or the word animal.", (avoids("z", "animal"),)),
    Check("Describe a garden. Do not use any comma.", (avoids(","), words(5, 10_000))),
    Check("Tell me why exercise is good. Begin with the words: In short", (begins("In short"),)),
    Check("Recommend a book. Begin with the word: Perhaps", (begins("Perhaps"),)),
    Check("Ask me a question about my weekend. End with a question mark.", (ends("?"),)),
    Check("Congratulate someone on a birthday. End with an exclamation mark.", (ends("!"),)),
    Check("Give three colors separated by commas and nothing else.", (listed(3), words(3, 6))),
    Check('Reply with a JSON object with the key "city" and the name of a city, and nothing else.', (is_json,)),
)


def passed(checks: Sequence[Check], answers: Sequence[str]) -> list[bool]:
    """Whether each answer does all that its instruction asks."""
    return [all(hold(answer) for hold in check.holds) for check, answer in zip(checks, answers, strict=True)]
