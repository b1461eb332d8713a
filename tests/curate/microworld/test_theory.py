"""The best predictor's closed form against counts in pools that were really corrupted."""

import math
from collections import Counter

import numpy as np
import pytest

from curate import microworld
from curate.example import column
from curate.microworld import theory
from curate.microworld.world import SINGLE, synonyms
from curate.noise import corrupt

WORLD = microworld.build_world(0)
OF_NAME = {name: attribute for attribute in SINGLE for name in synonyms(attribute)}
KINDS = ("swapped_response", "near_miss", "truncated", "contradictory", "mixture", "correlated")


def single_answers(kind, rate, seeds):
    """(attribute, true value, first token after the opening) of all single rows that kept the opening."""
    found = []
    for seed in seeds:
        noisy = corrupt(microworld.build_pool(WORLD, 4096, seed), kind=kind, rate=rate, seed=seed)
        rows = zip(*(column(noisy, name) for name in ("instruction", "output")), strict=True)
        for prompt, output in rows:
            words = prompt.split()
            asked = {OF_NAME[w] for w in words if w in OF_NAME}
            entity = [w for w in words if w in WORLD.split]
            if len(asked) != 1 or len(entity) != 1 or not f"{output} ".startswith("ok : "):
                continue
            (attribute,) = asked
            said = [*output.split(), theory.END]
            found.append((attribute, WORLD.facts[entity[0], attribute], said[2]))
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", [0.3, 0.6])
def test_the_closed_form_is_what_a_noisy_pool_says(kind, rate):
    answers = single_answers(kind, rate, range(3))
    noise = theory.channel(microworld.build_pool(WORLD, 4096, 0), kind, rate)
    facts = Counter((attribute, value) for attribute, value, _ in answers)
    predicted = {fact: theory.first_value(WORLD, noise, *fact) for fact in facts}
    assert all(sum(p.values()) == pytest.approx(1) for p in predicted.values())
    for name, event in (
        ("truth", lambda token, value: token == value.split()[0]),
        ("end", lambda token, value: token == theory.END),
    ):
        wanted = sum(n * sum(c for t, c in predicted[f].items() if event(t, f[1])) for f, n in facts.items())
        counted = sum(event(token, value) for _, value, token in answers)
        spread = math.sqrt(len(answers) * 0.25)
        assert counted == pytest.approx(wanted, abs=3.5 * spread), name
    # the log loss of the predictor on the answers is its own entropy, if it is the right one: no other has less
    losses = np.array([-math.log(predicted[a, v].get(token, 1e-6)) for a, v, token in answers])
    entropy = sum(n * theory.entropy(predicted[f]) for f, n in facts.items()) / len(answers)
    assert losses.mean() == pytest.approx(entropy, abs=4 * losses.std() / math.sqrt(len(losses)))


def test_near_miss_is_a_share_for_the_truth_and_the_rest_for_all_others():
    noise = theory.channel(microworld.build_pool(WORLD, 100, 0), "near_miss", 0.4)
    found = theory.first_value(WORLD, noise, "colour", "red")
    assert len(found) == 12 and found["red"] == pytest.approx(0.6)
    assert {round(c, 9) for t, c in found.items() if t != "red"} == {round(0.4 / 11, 9)}
    assert theory.entropy(found) == pytest.approx(-0.6 * math.log(0.6) - 0.4 * math.log(0.4 / 11))
    # 3 4 and 3 7 begin alike: 9 of the 29 wrong ages begin as the right one
    assert theory.first_value(WORLD, noise, "age", "3 4")["3"] == pytest.approx(0.6 + 0.4 * 9 / 29)


def test_form_noise_leaves_facts_alone():
    pool = microworld.build_pool(WORLD, 200, 0)
    items = microworld.build_suite(WORLD, "entity", 200)
    assert theory.entropy_first(WORLD, pool, items, kind="off_format", rate=0.5) == 0.0
    assert theory.entropy_first(WORLD, pool, items, kind="off_format", rate=1.0) is None
    short, long = ("ok : red .".split(), "ok : red , since the colour of x is red .".split())
    assert theory._truncated(short) == pytest.approx({theory.END: 0.5})  # one word or two, half each
    assert theory._truncated(long) == pytest.approx({"red": 1.0})


def test_the_mean_is_over_questions_for_one_fact():
    pool = microworld.build_pool(WORLD, 200, 0)
    entity, pairs = (microworld.build_suite(WORLD, name, 100) for name in ("entity", "composition"))
    alone = theory.entropy_first(WORLD, pool, entity, kind="near_miss", rate=0.2)
    assert theory.entropy_first(WORLD, pool, [*entity, *pairs], kind="near_miss", rate=0.2) == alone > 0
    assert theory.entropy_first(WORLD, pool, pairs, kind="near_miss", rate=0.2) is None
    assert theory.entropy_first(WORLD, pool, entity, kind="none", rate=0.0) == 0.0
    rising = [theory.entropy_first(WORLD, pool, entity, kind="swapped_response", rate=r) for r in (0.1, 0.3, 0.5)]
    assert rising == sorted(rising) and rising[0] > 0
