"""Stories that nobody wrote, for tests: no two alike, learnable, and as many as are asked for."""

import random
from pathlib import Path

NAMES = "Lily Tom Ben Mia Sam Ana Max Zoe Tim Sue".split()
THINGS = "ball kite drum boat cake book sock bell shoe lamp".split()
PLACES = "park wood house barn shop lake hill yard cave tent".split()
DID = "found lost made hid sold drew took saw dropped wanted".split()
FELT = "glad sad tired proud shy calm brave late wet hungry".split()


def stories(n: int, seed: int = 0) -> list[str]:
    """`n` stories of five sentences each."""
    rng = random.Random(seed)
    made = []
    for _ in range(n):
        name, thing = rng.choice(NAMES), rng.choice(THINGS)
        sentences = [f"{name} {rng.choice(DID)} a {thing} in the {rng.choice(PLACES)}."]
        for _ in range(4):
            other, where = rng.choice(NAMES), rng.choice(PLACES)
            sentences.append(
                f"{other} {rng.choice(DID)} the {rng.choice(THINGS)} near a {where} and was {rng.choice(FELT)}."
            )
        made.append(" ".join(sentences))
    return made


def write_stories(path: Path, texts: list[str]) -> Path:
    """A file as TinyStories is one."""
    path.write_text("\n<|endoftext|>\n".join(texts) + "\n<|endoftext|>\n")
    return path
