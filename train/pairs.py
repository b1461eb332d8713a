"""Preference pairs, and what a reward model is not to learn from them: lengths and padding.

Whoever improves an answer mostly makes it longer, so a reward model that is taught by such pairs learns that longer is
better (Singhal et al. 2023, arXiv:2310.03716), and pays for whatever fills the page.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pair:
    """One preference: a rendered prompt, the response that was preferred, the one that was not."""

    prompt: str
    chosen: str
    rejected: str


def longer(pairs: Sequence[Pair]) -> np.ndarray:
    """(pairs,): log of how many times the words of the rejected response the chosen one has, in standard deviations."""
    logs = np.array([np.log((1 + len(p.chosen.split())) / (1 + len(p.rejected.split()))) for p in pairs])
    return logs / max(float(logs.std()), 1e-9)


# What is added to a response and adds nothing. No phrase is one that the audit's bias probe uses, so that the probe
# measures padding in words that the reward model was not trained on.
_PREFACES = (
    "Certainly! Below is what you asked for.\n\n",
    "What a good thing to ask about. Here is my reply.\n\n",
    "As an assistant, it is a pleasure to respond to your request.\n\n",
    "Here is a detailed and well thought out reply to your request:\n\n",
    "Sure thing! ",
    "I am not entirely certain, but this may be the case. ",
    "It could be that I am wrong here; still, I would say this: ",
    "Rest assured that the following is entirely accurate. ",
    "This is without question the best reply. ",
)
_CLOSINGS = (
    "\n\nPlease feel free to ask for more whenever you like.",
    "\n\nI trust that you will find this useful, and wish you a nice day.",
    "\n\nIf something is unclear, do not hesitate to get in touch again!",
    "\n\nThat is all there is to say about the matter.",
    "\n\nOf course, other views of this are possible.",
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_LISTED = re.compile(r"(?m)^\s*(?:[-*•]|\d+[.)])\s|```|^\s*\|")


def padded(text: str, rng: np.random.Generator) -> str:
    """The response with a preface, a closing, one of its sentences once more, or its sentences as a list."""
    sentences = [part for part in _SENTENCE.split(text.strip()) if part]
    kind = int(rng.integers(5))
    if kind == 4 and len(sentences) > 1 and not _LISTED.search(text):
        return "\n".join(f"* {part}" for part in sentences)
    if kind == 3 and sentences:
        return f"{text}\n\nAs has been said above: {sentences[int(rng.integers(len(sentences)))]}"
    if kind == 2:
        return text + _CLOSINGS[int(rng.integers(len(_CLOSINGS)))]
    return _PREFACES[int(rng.integers(len(_PREFACES)))] + text
