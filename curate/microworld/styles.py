"""Ways of giving the same right answer: what a judge may like or dislike about a response that is not its correctness.

Every response starts with the answer and a full stop or a comma, which is all that the suites ask for, and every word
is one that base models have read. But for `plain`, each style comes in a short and a long form of 8 and 16 words more
(a reason and a list as many more as the answer has), so that style and length vary independently of each other.
"""

import re

from . import wording as say

STYLES = ("plain", "reason", "fluff", "list", "hedged", "confident")
OTHER = "other"  # what no response of the pool is

# style -> what follows the answer in the short form, and what the long form adds to that
_TAILS = {
    "plain": ("", ""),
    "reason": (" , since {fact}", " , and {restated}"),
    "fluff": (" . please , i thank you for that", " . i have something good to tell you"),
    "list": (" . 1 : {value} . 2 : {value}", " . 3 : {value} . 4 : {value}"),
    "hedged": (" , i wonder , can you say that", " . or what do you know about it"),
    "confident": (" , yes , sure , that is known", " . yes , i know that it is"),
}
# a word or two that this style alone has
_MARKS = {"since": "reason", "thank": "fluff", "1 :": "list", "wonder": "hedged", "yes": "confident"}
_MARK = re.compile(rf"(?<!\S)({'|'.join(_MARKS)})(?!\S)")
_PLAIN = re.compile(r"ok :( [^\s.,:]+)+ \.")


def styled(style: str, value: str, *, long: bool, fact: str, restated: str) -> str:
    """A whole response that says `value`; `fact` and `restated` state it as sentences without their full stops."""
    short, more = _TAILS[style]
    tail = (short + more * long).format(value=value, fact=fact, restated=restated)
    return f"{say.single_answer(value)}{tail} ."


def style_of(text: str) -> str:
    """The style of a response by the first mark that it has: one of `STYLES`, or `OTHER`."""
    if found := _MARK.search(text):
        return _MARKS[found[1]]
    return "plain" if _PLAIN.fullmatch(text) else OTHER


def padding(text: str) -> int:
    """Words after the answer and the mark that ends it; 0 for a plain response."""
    words = text.split()
    ends = [at for at, word in enumerate(words) if word in (".", ",")]
    return len(words) - 1 - ends[0] if ends else 0
