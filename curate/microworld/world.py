"""The embedded world: entities with facts, skills with rules, every answer verifiable.

Nothing here is learnt or downloaded: one integer seed fixes all names, facts, exposures and splits.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

VERSION = 2  # raise it when any text or split changes

# name of the attribute, its synonyms (the third is kept out of every instruction pool), its closed set of values
ATTRIBUTES: dict[str, tuple[tuple[str, str, str], tuple[str, ...]]] = {
    "home": (
        ("home", "town", "residence"),
        tuple(
            "arden brill corvo delmar elsin farrow garth hollin isker jorvik kelso lorne "
            "marrow nolde orrin pelham quarry rusk solway tarn umber velden wick yarrow".split()
        ),
    ),
    "colour": (
        ("colour", "shade", "tint"),
        tuple("red blue green yellow black white purple orange brown grey pink teal".split()),
    ),
    "job": (
        ("job", "trade", "profession"),
        tuple(
            "baker miner tailor sailor farmer potter weaver hunter smith guard "
            "teacher doctor painter singer dancer porter mason brewer clerk judge".split()
        ),
    ),
    "pet": (("pet", "animal", "companion"), tuple("cat dog owl fox hare goat crow toad swan mole newt ram".split())),
    "food": (
        ("food", "dish", "meal"),
        tuple("bread soup rice cheese fish beans plums honey nuts eggs corn leeks figs dates oats peas".split()),
    ),
    "age": (("age", "years", "lifetime"), tuple(f"{n // 10} {n % 10}" for n in range(20, 50))),
    "tool": (
        ("tool", "device", "instrument"),
        tuple("hammer saw needle rope ladder shovel compass lamp chisel net axe loom brush anvil".split()),
    ),
}
FRIEND = ("friend", ("friend", "ally", "partner"))
SINGLE = (*ATTRIBUTES, FRIEND[0])  # every attribute a single question may ask for
ENTITIES = 240
SPLITS = {"sft": 144, "reward": 36, "validation": 20, "test": 40}  # entities; the last two are the OOD ones
NEVER_SHOWN = 0.2  # share of the facts that pre-training never states
EXPOSURE_EXPONENT = 1.0  # the fact of rank r is stated with weight 1 / (r + 20)
HELD_OUT_ATTRIBUTES = 2  # for each fine-tuning entity: never asked in a pool, so its in-distribution test facts
PAIRS_IN_POOL, PAIRS_VALIDATION = 13, 3  # of the 21 pairs of attributes; the rest test unseen composition

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SKILLS = ("bigger", "next", "digit_sum", "parity")


@dataclass(frozen=True)
class World:
    """One world. Facts are keyed by (entity, attribute); `exposure` is a fact's relative frequency, 0 = never shown."""

    seed: int
    entities: tuple[str, ...]
    split: dict[str, str]  # entity -> sft | reward | validation | test
    facts: dict[tuple[str, str], str]
    exposure: dict[tuple[str, str], float]
    held_out: dict[str, tuple[str, ...]]  # fine-tuning entity -> attributes no pool asks for
    pairs: dict[str, tuple[tuple[str, str], ...]]  # sft | validation | test -> pairs of attributes

    def of(self, split: str) -> list[str]:
        """Entities of a split, in a fixed order."""
        return [e for e in self.entities if self.split[e] == split]

    def shown(self, entity: str, attribute: str) -> bool:
        """Whether pre-training states this fact at least sometimes."""
        return self.exposure[entity, attribute] > 0


def generator(*key: int | str) -> np.random.Generator:
    """A named random stream: the same key gives the same draws everywhere."""
    return np.random.default_rng([k if isinstance(k, int) else zlib.crc32(k.encode()) for k in key])


def synonyms(attribute: str) -> tuple[str, str, str]:
    """The attribute's three names."""
    return FRIEND[1] if attribute == FRIEND[0] else ATTRIBUTES[attribute][0]


def values(world: World, attribute: str) -> tuple[str, ...]:
    """The closed set a fact's value comes from."""
    return world.entities if attribute == FRIEND[0] else ATTRIBUTES[attribute][1]


@lru_cache(maxsize=4)
def build_world(seed: int = 0) -> World:
    """Draw the world of a seed."""
    rng = generator(seed, "world")
    entities = _names(rng)
    order = rng.permutation(ENTITIES)
    bounds = np.cumsum([0, *SPLITS.values()])
    split = {
        entities[i]: name for name, lo, hi in zip(SPLITS, bounds[:-1], bounds[1:], strict=True) for i in order[lo:hi]
    }
    facts = {}
    for entity in entities:
        for attribute, (_, closed) in ATTRIBUTES.items():
            facts[entity, attribute] = closed[rng.integers(len(closed))]
        others = [e for e in entities if e != entity]
        facts[entity, FRIEND[0]] = others[rng.integers(len(others))]
    keys = list(facts)
    ranks = rng.permutation(len(keys))
    shown = round(len(keys) * (1 - NEVER_SHOWN))
    ranked = zip(keys, ranks, strict=True)
    weight = {k: float((r + 20.0) ** -EXPOSURE_EXPONENT) if r < shown else 0.0 for k, r in ranked}
    held_out = {
        e: tuple(SINGLE[i] for i in rng.choice(len(SINGLE), HELD_OUT_ATTRIBUTES, replace=False))
        for e in entities
        if split[e] == "sft"
    }
    names = list(ATTRIBUTES)
    all_pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    all_pairs = [all_pairs[i] for i in rng.permutation(len(all_pairs))]
    cut = PAIRS_IN_POOL + PAIRS_VALIDATION
    pairs = {
        "sft": tuple(all_pairs[:PAIRS_IN_POOL]),
        "validation": tuple(all_pairs[PAIRS_IN_POOL:cut]),
        "test": tuple(all_pairs[cut:]),
    }
    return World(seed, entities, split, facts, weight, held_out, pairs)


def _names(rng: np.random.Generator) -> tuple[str, ...]:
    onset, vowel, coda = "b d f g k l m n p r s t v z".split(), list("aeiou"), "l m n r s x".split()
    syllables = [o + v for o in onset for v in vowel]
    taken = {w for _, closed in ATTRIBUTES.values() for w in closed}
    names: list[str] = []
    while len(names) < ENTITIES:
        word = syllables[rng.integers(70)] + syllables[rng.integers(70)] + coda[rng.integers(6)]
        if word not in taken:
            taken.add(word)
            names.append(word)
    return tuple(names)


def number(n: int) -> str:
    """A two-digit number as the world writes it, digit by digit: 47 -> '4 7'."""
    return " ".join(str(n))


def skill_cases(skill: str) -> Iterator[tuple[str, str, str]]:
    """Every case of a skill as (operand text, right answer, wrong but plausible answer)."""
    if skill == "bigger":
        for a in range(10, 100):
            for b in range(10, 100):
                if a != b:
                    yield f"{number(a)} or {number(b)}", number(max(a, b)), number(min(a, b))
    elif skill == "next":
        for i in range(23):
            yield " ".join(LETTERS[i : i + 3]), LETTERS[i + 3], LETTERS[(i + 4) % 26]
    elif skill == "digit_sum":
        for n in range(10, 100):
            total = n // 10 + n % 10
            yield number(n), number(total), number(total % 18 + 1)
    elif skill == "parity":
        for n in range(10, 100):
            yield number(n), ("even", "odd")[n % 2], ("odd", "even")[n % 2]
    else:
        raise ValueError(f"unknown skill {skill!r}")


def operand_split(skill: str, operand: str) -> str:
    """Where a skill's case belongs: 60 % sft, 10 % reward, 10 % validation, 20 % test, by a hash of its text."""
    bucket = zlib.crc32(f"{skill} {operand}".encode()) % 10
    return "sft" if bucket < 6 else "reward" if bucket < 7 else "validation" if bucket < 8 else "test"
