"""The embedded pool: facts and skills with verifiable answers, text to pre-train on, preference pairs, questions."""

from .pool import build_pool, preference_pairs
from .suites import FACTS, OOD, SUITES, Item, build_suite, majority_baseline
from .text import Cloze, bands, cloze, stream
from .wording import FORMAT_TOKENS, PARAPHRASES, SPECIAL, TEMPLATE, vocabulary
from .world import SINGLE, VERSION, World, build_world

__all__ = [
    "FACTS",
    "FORMAT_TOKENS",
    "OOD",
    "PARAPHRASES",
    "SINGLE",
    "SPECIAL",
    "SUITES",
    "TEMPLATE",
    "VERSION",
    "Cloze",
    "Item",
    "World",
    "bands",
    "build_pool",
    "build_suite",
    "build_world",
    "cloze",
    "majority_baseline",
    "preference_pairs",
    "stream",
    "vocabulary",
]
