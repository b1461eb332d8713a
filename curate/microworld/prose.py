"""The world told in running text, to pre-train on: about few entities or many, truly or not; and a parser for it.

`text.stream` is what the embedded base models read. Here all facts of the chosen entities are stated equally often,
so that what differs between two texts is how much of the world they speak of and how much of it is wrong.
"""

import random
import re
from collections.abc import Iterable
from functools import lru_cache

from datasets import Dataset

from ..errors import UserError
from ..example import make_pool
from . import wording as say
from .suites import Item
from .text import BIOGRAPHY_FACTS, BIOGRAPHY_SHARE
from .world import SINGLE, World, build_world, generator, synonyms, values

VALIDATION_SHARE = 0.25  # of the facts: those whose probes choose the best point of a curve

Fact = tuple[str, str, str]  # (entity, attribute, value)


def prose(world: World, rows: int, seed: int, *, entities: int, wrong_share: float, words: int) -> Dataset:
    """`rows` pieces of text of at most `words` words about the world's first `entities` entities.

    Of all stated values, each drawn by itself, the share `wrong_share` is another one of the right kind: a text that
    is wrong now and then, not a different world. Raises UserError for more entities than there are.
    """
    if entities > len(world.entities):
        raise UserError(f"data.entities: {entities} is more than the world's {len(world.entities)}; give fewer")
    rng = random.Random(f"{world.seed} {seed} prose")
    some = world.entities[:entities]
    made: list[dict[str, str]] = []
    sentence = _sentence(world, rng, some, wrong_share)
    while len(made) < rows:
        piece: list[str] = []
        while not piece or len(piece) + len(sentence) <= words:
            piece += sentence
            sentence = _sentence(world, rng, some, wrong_share)
        made.append({"instruction": "", "output": " ".join(piece)})
    return make_pool(made, source=f"microworld-{world.seed}-text")


def _sentence(world: World, rng: random.Random, entities: tuple[str, ...], wrong_share: float) -> list[str]:
    entity = rng.choice(entities)

    def clause(attribute: str) -> tuple[str, str]:
        value = world.facts[entity, attribute]
        if rng.random() < wrong_share:
            value = rng.choice([v for v in values(world, attribute) if v != value])
        return rng.choice(synonyms(attribute)), value

    if rng.random() < BIOGRAPHY_SHARE:
        clauses = [" ".join(clause(a)) for a in rng.sample(SINGLE, BIOGRAPHY_FACTS)]
        return f"{entity} : {' , '.join(clauses)} .".split()
    name, value = clause(rng.choice(SINGLE))
    return rng.choice(say.STATEMENTS).format(a=name, e=entity, v=value).split()


def probes(world: World, part: str, entities: int) -> list[Item]:
    """The facts of the first `entities` entities to complete, in a fixed, shuffled order: part validation or test."""
    rng = generator(world.seed, "prose", "probes")
    keys = [(e, a) for e in world.entities[:entities] for a in SINGLE]
    order = rng.permutation(len(keys))
    cut = round(VALIDATION_SHARE * len(keys))
    chosen = order[:cut] if part == "validation" else order[cut:]
    items = []
    for entity, attribute in (keys[i] for i in chosen):
        prompt = say.CLOZE.format(a=synonyms(attribute)[0], e=entity)
        items.append(Item(prompt, world.facts[entity, attribute], attribute, stop=(".",)))
    return items


def parse(world: World, sentence: str) -> list[Fact] | None:
    """What a sentence, without its full stop, states; None where it is no sentence of this text.

    A value need not be of the attribute's kind: "the pet of X is red" is grammatical, and false.
    """
    frames, clause = _patterns(world.seed)
    for frame in frames:
        if match := frame.fullmatch(sentence):
            return [(match["e"], _attributes()[match["a"]], match["v"])]
    entity, colon, rest = sentence.partition(" : ")
    found = [clause.fullmatch(text) for text in rest.split(" , ")]
    if not colon or entity not in world.entities or not all(found):
        return None
    return [(entity, _attributes()[match["a"]], match["v"]) for match in found if match]


def is_true(world: World, fact: Fact) -> bool:
    """Whether the world agrees."""
    entity, attribute, value = fact
    return world.facts[entity, attribute] == value


@lru_cache(maxsize=1)
def _attributes() -> dict[str, str]:
    return {name: attribute for attribute in SINGLE for name in synonyms(attribute)}


def _slots(world: World) -> dict[str, str]:
    def one_of(words: Iterable[str]) -> str:
        return "|".join(sorted(words, key=lambda word: (-len(word), word)))

    every = {v for attribute in SINGLE for v in values(world, attribute)}
    slots = {"a": _attributes(), "e": world.entities, "v": every}
    return {name: f"(?P<{name}>{one_of(words)})" for name, words in slots.items()}


@lru_cache(maxsize=4)
def _patterns(seed: int) -> tuple[list[re.Pattern[str]], re.Pattern[str]]:
    """The frames of single statements, and a clause of a biography."""
    slots = _slots(build_world(seed))
    frames = [re.compile(frame.removesuffix(" .").format(**slots)) for frame in say.STATEMENTS]
    return frames, re.compile(f"{slots['a']} {slots['v']}")
