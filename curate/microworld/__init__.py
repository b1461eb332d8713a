"""The embedded pool: facts and skills with verifiable answers, text to pre-train on, preference pairs, questions."""

from .pool import build_pool, preference_pairs
from .prose import is_true, parse, probes, prose
from .suites import OOD, SUITES, Item, build_suite, majority_baseline
from .text import Cloze, cloze, stream
from .wording import FORMAT_TOKENS, PARAPHRASES, SPECIAL, TEMPLATE, vocabulary
from .world import VERSION, World, build_world

__all__ = [
    "FORMAT_TOKENS",
    "OOD",
    "PARAPHRASES",
    "SPECIAL",
    "SUITES",
    "TEMPLATE",
    "VERSION",
    "Cloze",
    "Item",
    "World",
    "build_pool",
    "build_suite",
    "build_world",
    "cloze",
    "is_true",
    "majority_baseline",
    "parse",
    "preference_pairs",
    "probes",
    "prose",
    "stream",
    "vocabulary",
]
