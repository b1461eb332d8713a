"""Instruction rows of the world: the fine-tuning pool and the reward model's preference pairs."""

import functools
from typing import Any

import numpy as np
from datasets import Dataset

from ..errors import UserError
from ..example import make_pool
from . import wording as say
from .styles import STYLES, styled
from .text import Fact, bands
from .world import SINGLE, SKILLS, World, generator, operand_split, skill_cases, synonyms, values

SHARES = {"single": 0.73, "pair": 0.15, "skill": 0.12}  # pairs are the rare, hard stratum
KNOWN = {"known": ("top", "middle"), "rare": ("rare",), "unknown": ("never",)}  # by the bands of exposure
REASON_SHARE = 0.3  # of the single questions: the response gives its reason, so that lengths vary


def build_pool(world: World, rows: int, seed: int, facts: str = "all", styles: bool = False) -> Dataset:
    """`rows` instruction rows with unique prompts about fine-tuning entities, their held-out facts never asked.

    Every row carries `category` (single, pair or the skill's name) and `near_miss`, a wrong answer of the right kind.

    `facts` other than all asks only for facts that pre-training states often (known), rarely (rare) or never
    (unknown), one at a time: a pair would bring in facts of other bands, so single questions take the pairs' share.

    With `styles` the same questions have the same answers in the six styles of `styles.STYLES`, each as often as the
    others among singles, pairs and skills, half of its rows long; without, they are plain or give a reason.
    """
    rng = generator(world.seed, seed, "pool")
    shares = SHARES if facts == "all" else {**SHARES, "single": SHARES["single"] + SHARES["pair"], "pair": 0.0}
    wanted = {kind: round(rows * share) for kind, share in shares.items()}
    wanted["single"] += rows - sum(wanted.values())
    singles: Any = _singles
    if facts != "all":
        only = {fact for fact, band in bands(world).items() if band in KNOWN[facts]}
        singles = functools.partial(_singles, only=only)
    made: list[dict[str, str]] = []
    for kind, cases in (("single", singles), ("pair", _pairs), ("skill", _skills)):
        possible = cases(world, "sft", rng)
        if len(possible) < wanted[kind]:
            largest = int(len(possible) / shares[kind])
            raise UserError(f"data.rows: {rows} is more than the world holds; give at most {largest}")
        drawn = [possible[i] for i in rng.choice(len(possible), wanted[kind], replace=False)]
        made += [_restyled(row, i) for i, row in enumerate(drawn)] if styles else drawn
    return make_pool((made[i] for i in rng.permutation(len(made))), source=f"microworld-{world.seed}")


def preference_pairs(world: World, seed: int) -> list[dict[str, str]]:
    """Pairs {instruction, input, chosen, rejected} about the reward model's own entities and operands.

    The rejected response is a near miss, another row's response, a truncation or a breach of the house format, a
    quarter each: the faults a curator would show an annotator. No row of any pool or suite is among them.
    """
    rng = generator(world.seed, seed, "preferences")
    rows = _singles(world, "reward", rng) + _pairs(world, "reward", rng) + _skills(world, "reward", rng)
    rows = [rows[i] for i in rng.permutation(len(rows))]
    pairs = []
    for i, row in enumerate(rows):
        chosen = row["output"]
        for fault in (i % 4, (i + 1) % 4):
            if fault == 0:
                rejected = row["near_miss"]
            elif fault == 1:
                rejected = rows[rng.integers(len(rows))]["output"]
            elif fault == 2:
                words = chosen.split()
                rejected = " ".join(words[: int(rng.integers(1, max(2, round(len(words) * 0.7))))])
            else:
                rejected = _informal(chosen, rng)
            if rejected != chosen:
                pairs.append({"instruction": row["instruction"], "input": "", "chosen": chosen, "rejected": rejected})
    return [pairs[i] for i in rng.permutation(len(pairs))]


def _informal(response: str, rng: np.random.Generator) -> str:
    """The right answer out of the house format: without its marker, or in the forum's manner."""
    content = response.removeprefix("ok : ")
    return (content, f"reply {content}", f"sure , {content}")[rng.integers(3)]


def _row(instruction: str, output: str, near_miss: str, category: str, **told: str) -> dict[str, str]:
    """A row; `told` is what its response says, for another wording of it: no column of a pool."""
    row = {"instruction": instruction, "input": "", "output": output, "near_miss": near_miss, "category": category}
    return {**row, **told}


def _restyled(row: dict[str, str], place: int) -> dict[str, str]:
    """The row, right and wrong answer alike, in the style and length that are dealt to its place in a random order."""
    style, long = STYLES[place % len(STYLES)], place // len(STYLES) % 2 == 1
    texts = {
        name: styled(style, v, long=long, fact=row["fact"].format(v=v), restated=row["restated"].format(v=v))
        for name, v in (("output", row["value"]), ("near_miss", row["wrong"]))
    }
    return {**row, **texts}


def _another(rng: np.random.Generator, world: World, attribute: str, value: str) -> str:
    closed = [v for v in values(world, attribute) if v != value]
    return closed[rng.integers(len(closed))]


def _singles(world: World, split: str, rng: np.random.Generator, only: set[Fact] | None = None) -> list[dict[str, str]]:
    rows = []
    for entity in world.of(split):
        for attribute in SINGLE:
            if attribute in world.held_out.get(entity, ()):
                continue
            if only is not None and (entity, attribute) not in only:
                continue
            value = world.facts[entity, attribute]
            for question in say.SINGLE_QUESTIONS["seen"]:
                for name in synonyms(attribute)[:2]:
                    wrong, reason = _another(rng, world, attribute, value), rng.random() < REASON_SHARE
                    right_text, wrong_text = (
                        say.single_response(entity, name, v, bool(reason)) for v in (value, wrong)
                    )
                    told = {
                        "value": value, "wrong": wrong,
                        "fact": f"the {name} of {entity} is {{v}}", "restated": f"for {entity} the {name} is {{v}}",
                    }  # fmt: skip
                    rows.append(_row(question.format(a=name, e=entity), right_text, wrong_text, "single", **told))
    return rows


def _pairs(world: World, split: str, rng: np.random.Generator) -> list[dict[str, str]]:
    rows = []
    for entity in world.of(split):
        for a, b in world.pairs["sft"]:
            if {a, b} & set(world.held_out.get(entity, ())):
                continue
            names = (synonyms(a)[0], synonyms(b)[0])
            found = (world.facts[entity, a], world.facts[entity, b])
            for question in say.PAIR_QUESTIONS:
                wrong = (_another(rng, world, a, found[0]), _another(rng, world, b, found[1]))
                right_text, wrong_text = (say.pair_response(v) for v in (found, wrong))
                both = f"the {names[0]} and the {names[1]}"
                told = {
                    "value": " and ".join(found), "wrong": " and ".join(wrong),
                    "fact": f"{both} of {entity} are {{v}}", "restated": f"for {entity} {both} are {{v}}",
                }  # fmt: skip
                asked = question.format(a=names[0], b=names[1], e=entity)
                rows.append(_row(asked, right_text, wrong_text, "pair", **told))
    return rows


def _skills(world: World, split: str, rng: np.random.Generator) -> list[dict[str, str]]:
    rows = []
    for skill in SKILLS:
        cases = [c for c in skill_cases(skill) if operand_split(skill, c[0]) == split]
        if skill == "bigger":  # 8,010 cases: as many as would drown the other skills
            cases = [cases[i] for i in sorted(rng.choice(len(cases), min(len(cases), 600), replace=False))]
        for operand, value, wrong in cases:
            question = say.SKILL_QUESTIONS[skill].format(o=operand)
            fact = say.SKILL_STATEMENTS[skill].format(o=operand, v="{v}").removesuffix(" .")
            right_text, wrong_text = (f"{say.single_answer(v)} ." for v in (value, wrong))
            told = {"value": value, "wrong": wrong, "fact": fact, "restated": fact}
            rows.append(_row(question, right_text, wrong_text, skill, **told))
    return rows
