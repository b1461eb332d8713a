"""Pre-training text: an endless declarative stream that states facts by their exposure, and the cloze probe of it."""

import math
import random
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar

from . import wording as say
from .world import SINGLE, SKILLS, World, skill_cases, synonyms

T = TypeVar("T")
Fact = tuple[str, str]  # (entity, attribute)

SKILL_SHARE, CHATTER_SHARE, FORUM_SHARE, BIOGRAPHY_SHARE = 0.12, 0.05, 0.10, 0.45  # the rest: single statements
BIOGRAPHY_FACTS = 5
UNSEEN_WORDING_SHARE = 0.3  # of the forum's single questions: the wordings that no pool uses


@dataclass(frozen=True)
class Cloze:
    """One probe of the base: the prompt, the value that should follow, and how often pre-training states the fact."""

    prompt: str
    value: str
    band: str  # top | middle | rare (fifths of the shown facts; middle = all between) | never


def stream(world: World, rng: random.Random) -> Iterator[str]:
    """Sentences without end; `rng` decides their order, so its state is the position in the text."""
    facts = [k for k, w in world.exposure.items() if w > 0]
    forum_facts = [k for k in facts if _in_forum(world, *k)]
    weights = _cumulative(world, facts)
    forum_weights = _cumulative(world, forum_facts)
    known, asked = _by_entity(facts), _by_entity(forum_facts)
    skills = {s: list(skill_cases(s)) for s in SKILLS}
    bounds = list(accumulate([SKILL_SHARE, CHATTER_SHARE, FORUM_SHARE, BIOGRAPHY_SHARE]))
    while True:
        kind = bisect(bounds, rng.random())
        if kind == 0:
            yield _skill(rng, skills)
        elif kind == 1:
            yield _chatter(rng, world)
        elif kind == 2:
            yield _forum(rng, world, _weighted(rng, forum_facts, forum_weights), asked)
        elif kind == 3:
            yield _biography(rng, world, _weighted(rng, facts, weights)[0], known)
        else:
            entity, attribute = _weighted(rng, facts, weights)
            name, value = _pick(rng, synonyms(attribute)), world.facts[entity, attribute]
            yield _pick(rng, say.STATEMENTS).format(a=name, e=entity, v=value)


def bands(world: World) -> dict[Fact, str]:
    """Every fact's band of exposure: the `top` and the `rare` fifth of the shown facts, `middle` between, `never`."""
    weights = sorted((w for w in world.exposure.values() if w > 0), reverse=True)
    fifth = len(weights) // 5
    return {
        fact: "never" if w == 0 else "top" if w >= weights[fifth - 1] else "rare" if w < weights[-fifth] else "middle"
        for fact, w in world.exposure.items()
    }


def cloze(world: World) -> list[Cloze]:
    """Every fact as a probe, by its first name, with the band of its exposure."""
    band = bands(world)
    return [
        Cloze(say.CLOZE.format(a=synonyms(attribute)[0], e=entity), value, band[entity, attribute])
        for (entity, attribute), value in world.facts.items()
    ]


def _cumulative(world: World, facts: list[Fact]) -> list[float]:
    return list(accumulate(world.exposure[k] for k in facts))


def _weighted(rng: random.Random, facts: list[Fact], cumulative: list[float]) -> Fact:
    return facts[bisect(cumulative, rng.random() * cumulative[-1])]


def _pick(rng: random.Random, options: Sequence[T]) -> T:
    return options[int(rng.random() * len(options))]


def _skill(rng: random.Random, skills: dict[str, list[tuple[str, str, str]]]) -> str:
    skill = _pick(rng, SKILLS)
    operand, value, _ = _pick(rng, skills[skill])
    return say.SKILL_STATEMENTS[skill].format(o=operand, v=value)


def _chatter(rng: random.Random, world: World) -> str:
    """Sentences that hold every wording of the world and no answer, so that no frame word is new in fine-tuning."""
    if rng.random() < 0.4:
        return _pick(rng, say.CHATTER)
    entity, a, b = _pick(rng, world.entities), _pick(rng, SINGLE), _pick(rng, SINGLE)
    frames = [q for group in say.SINGLE_QUESTIONS.values() for q in group] + list(say.PAIR_QUESTIONS)
    return _pick(rng, frames).format(e=entity, a=_pick(rng, synonyms(a)), b=_pick(rng, synonyms(b)))


def _in_forum(world: World, entity: str, attribute: str) -> bool:
    """Whether the forum may ask for this fact: what the suites ask, the base reads as statements only."""
    return world.split[entity] in ("sft", "reward") and attribute not in world.held_out.get(entity, ())


def _by_entity(facts: list[Fact]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for entity, attribute in facts:
        grouped.setdefault(entity, []).append(attribute)
    return grouped


def _forum(rng: random.Random, world: World, fact: Fact, asked: dict[str, list[str]]) -> str:
    entity, attribute = fact
    if rng.random() < 0.25:
        pairs = [p for p in world.pairs["sft"] if p[0] in asked[entity] and p[1] in asked[entity]]
        if pairs:
            a, b = _pick(rng, pairs)
            question = _pick(rng, say.PAIR_QUESTIONS).format(a=synonyms(a)[0], b=synonyms(b)[0], e=entity)
            value = f"{world.facts[entity, a]} and {world.facts[entity, b]}"
            return _pick(rng, say.FORUM).format(q=question, v=value)
    unseen = rng.random() < UNSEEN_WORDING_SHARE
    group = _pick(rng, ("validation", "test", "test")) if unseen else "seen"
    question = _pick(rng, say.SINGLE_QUESTIONS[group]).format(a=_pick(rng, synonyms(attribute)), e=entity)
    return _pick(rng, say.FORUM).format(q=question, v=world.facts[entity, attribute])


def _biography(rng: random.Random, world: World, entity: str, known: dict[str, list[str]]) -> str:
    # weighted draws without replacement (Efraimidis and Spirakis 2006)
    order = sorted(known[entity], key=lambda a: math.log(1 - rng.random()) / world.exposure[entity, a], reverse=True)
    clauses = [f"{_pick(rng, synonyms(a))} {world.facts[entity, a]}" for a in order[:BIOGRAPHY_FACTS]]
    return f"{entity} : {' , '.join(clauses)} ."
