"""Evaluation items of the world, disjoint from every pool: one in-distribution suite, three kinds of OOD, validation.

Only facts that pre-training states are asked: nobody can know the others. The suite `facts_never` asks for just those.

The base's text states the facts that are asked and answers none of these questions: its forum, which asks in all
wordings so that no wording is new to the base, leaves out what the suites ask for.
"""

from dataclasses import dataclass

import numpy as np

from . import wording as say
from .text import bands
from .world import SINGLE, SKILLS, World, generator, operand_split, skill_cases, synonyms

OOD = ("entity", "wording", "composition")
FACTS = ("facts_top", "facts_middle", "facts_rare", "facts_never")  # by how often pre-training states the fact
SUITES = ("validation", "id", *OOD, *FACTS)
SKILL_SHARE_OF_ID = 0.2


@dataclass(frozen=True)
class Item:
    """A question and the answer that a right response starts with; one of `stop` must follow it."""

    instruction: str
    answer: str
    category: str
    stop: tuple[str, ...] = (".", ",")


def build_suite(world: World, name: str, items: int) -> list[Item]:
    """The first `items` questions of a suite in its fixed, shuffled order (fewer where the world has fewer)."""
    rng = generator(world.seed, name, "suite")
    if name == "validation":
        return _validation(world, items)
    if name == "id":
        skills = round(items * SKILL_SHARE_OF_ID)
        facts = _take(rng, _held_out_facts(world, "seen", (0, 1)), items - skills)
        return _take(rng, facts + _take(rng, _skills(world, "test"), skills), items)
    if name == "entity":
        return _take(rng, _singles(world, "test", "seen", (0, 1)), items)
    if name == "wording":
        return _take(rng, _held_out_facts(world, "test", (0, 1, 2)), items)
    if name == "composition":
        return _take(rng, _pairs(world, "test", "test"), items)
    if name in FACTS:
        return _take(rng, _facts(world, name.removeprefix("facts_")), items)
    raise ValueError(f"evaluation.suites: no suite {name!r}; give some of {', '.join(SUITES)}")


def _validation(world: World, items: int) -> list[Item]:
    """A mixture like the test suites', from entities, wordings, pairs and operands of its own."""
    rng = generator(world.seed, "validation", "suite")
    share = items // 4
    mixture = (
        _take(rng, _singles(world, "validation", "seen", (0, 1)), share)
        + _take(rng, _singles(world, "validation", "validation", (0, 1, 2)), share)
        + _take(rng, _pairs(world, "validation", "validation"), share)
        + _take(rng, _skills(world, "validation"), items - 3 * share)
    )
    return _take(rng, mixture, items)  # so that the first so many are a mixture too


def majority_baseline(world: World, items: list[Item]) -> float:
    """Exact match of the commonest answer of each attribute or skill: the best that can be had without knowledge."""
    by_category: dict[str, list[str]] = {}
    for item in items:
        by_category.setdefault(item.category, []).append(item.answer)
    return sum(max(map(answers.count, set(answers))) for answers in by_category.values()) / len(items)


def _take(rng: np.random.Generator, items: list[Item], n: int) -> list[Item]:
    return [items[i] for i in rng.permutation(len(items))[:n]]


def _single(world: World, entity: str, attribute: str, question: str, name: str) -> Item:
    text = question.format(a=name, e=entity)
    return Item(text, say.single_answer(world.facts[entity, attribute]), attribute)


def _singles(world: World, split: str, group: str, names: tuple[int, ...]) -> list[Item]:
    return [
        _single(world, e, a, question, synonyms(a)[i])
        for e in world.of(split)
        for a in SINGLE
        if world.shown(e, a)
        for question in say.SINGLE_QUESTIONS[group]
        for i in names
    ]


def _held_out_facts(world: World, group: str, names: tuple[int, ...]) -> list[Item]:
    return [
        _single(world, e, a, question, synonyms(a)[i])
        for e, attributes in world.held_out.items()
        for a in attributes
        if world.shown(e, a)
        for question in say.SINGLE_QUESTIONS[group]
        for i in names
    ]


def _facts(world: World, wanted: str) -> list[Item]:
    """Questions in seen wordings for the facts of a band that no pool asks for, about known and unknown entities."""
    asked = [(e, a) for e, attributes in world.held_out.items() for a in attributes]
    asked += [(e, a) for e in world.of("test") for a in SINGLE]
    band = bands(world)
    return [
        _single(world, e, a, question, synonyms(a)[i])
        for e, a in asked
        if band[e, a] == wanted
        for question in say.SINGLE_QUESTIONS["seen"]
        for i in (0, 1)
    ]


def _pairs(world: World, split: str, role: str) -> list[Item]:
    return [
        Item(
            question.format(a=synonyms(a)[0], b=synonyms(b)[0], e=e),
            say.single_answer(f"{world.facts[e, a]} and {world.facts[e, b]}"),
            f"{a} and {b}",
        )
        for e in world.of(split)
        for a, b in world.pairs[role]
        if world.shown(e, a) and world.shown(e, b)
        for question in say.PAIR_QUESTIONS
    ]


def _skills(world: World, split: str) -> list[Item]:
    """Skill questions of a split, the many cases of `bigger` thinned so that the four weigh alike."""
    items = []
    for skill in SKILLS:
        cases = [c for c in skill_cases(skill) if operand_split(skill, c[0]) == split]
        cases = cases[:: max(1, len(cases) // 40)]
        items += [Item(say.SKILL_QUESTIONS[skill].format(o=o), say.single_answer(v), skill) for o, v, _ in cases]
    return items
