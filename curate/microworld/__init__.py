"""The embedded pool: facts and skills with verifiable answers, text to pre-train on, preference pairs, questions."""

from .pool import build_pool, preference_pairs
from .prose import is_true, parse, probes, prose
from .styles import OTHER, STYLES, style_of
from .suites import FACTS, OOD, SUITES, Item, build_suite, majority_baseline
from .text import Cloze, bands, cloze, stream
from .wording import FORMAT_TOKENS, PARAPHRASES, SPECIAL, TEMPLATE, vocabulary
from .world import SINGLE, VERSION, World, build_world

__all__ = [
    "FACTS",
    "FORMAT_TOKENS",
    "OOD",
    "OTHER",
    "PARAPHRASES",
    "SINGLE",
    "SPECIAL",
    "STYLES",
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
    "is_true",
    "majority_baseline",
    "parse",
    "preference_pairs",
    "probes",
    "prose",
    "stream",
    "style_of",
    "vocabulary",
]
