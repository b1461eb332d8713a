"""Whether a judge's prompt has the form it should have, by its text alone."""

import re

from curate.example import digest


def held(user: str, instruction: str, response: str) -> bool:
    """Whether this is the message for this row, and the row's text stands inside its markers and nowhere else.

    What is broken up in a text gains spaces, so spaces are not compared.
    """
    code = digest(instruction, "", response)
    edges = [f"[[{edge} {part} {code}]]" for part in ("INSTRUCTION", "RESPONSE") for edge in ("BEGIN", "END")]
    if re.findall(r"(?im)\[\[\s*(?:begin|end)\b.*", user) != edges or "<|" in user:
        return False
    before, instructed, between, responded, after = re.split("|".join(map(re.escape, edges)), user)
    return (
        before == f"Example {code}\n\n"
        and _solid(instructed) == _solid(f"\n{instruction}\n")
        and between == "\n\n"
        and _solid(responded) == _solid(f"\n{response}\n")
        and after == f'\n\nGrade the accuracy of the response of example {code}: {{"score": GRADE}}'
    )


def _solid(text: str) -> str:
    return text.replace(" ", "")
