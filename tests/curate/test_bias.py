"""Planted biases are found, and a fair scorer has none."""

import numpy as np
import pytest
from datasets import Dataset

from curate import microworld
from curate.bias import ENGLISH, WORLD, Edit, probe
from curate.example import column, make_pool
from curate.scoring.surface import length, surface


@pytest.fixture
def answers() -> Dataset:
    rng = np.random.default_rng(0)
    rows = [
        {"instruction": f"q{at}", "output": " ".join([f"Fact {at} of {n} holds." for n in range(rng.integers(1, 9))])}
        for at in range(60)
    ]
    return make_pool(rows, source="test")


def test_a_length_scorer_falls_for_everything_that_adds_words(answers: Dataset) -> None:
    found = {effect.edit: effect for effect in probe(answers, length)}
    for name in ("fluff: preface", "fluff: closing offer", "hedges", "confident tone", "padding: restated"):
        assert found[name].low > 0 and found[name].rises == 1 and found[name].p_holm < 0.001
    assert found["second half dropped"].high < 0 and not found["second half dropped"].harmless
    words = np.array([len(text.split()) for text in column(answers, "output")])
    added = len(ENGLISH[0].apply("").split())
    assert found["fluff: preface"].effect == pytest.approx(added / words.std(ddof=1))


def test_each_style_is_told_from_the_others(answers: Dataset) -> None:
    hedges = {e.edit: e for e in probe(answers, lambda pool: surface(pool, "hedges") + 0.01 * length(pool))}
    assert hedges["hedges"].effect > 5 * abs(hedges["confident tone"].effect)
    lists = {e.edit: e for e in probe(answers, lambda pool: surface(pool, "list_items") + 0.01 * length(pool))}
    assert lists["list formatting"].effect > 5 * abs(lists["fluff: preface"].effect)
    boilerplate = {e.edit: e for e in probe(answers, lambda pool: surface(pool, "boilerplate") + 0.01 * length(pool))}
    assert boilerplate["fluff: closing offer"].effect > 2 * boilerplate["padding: restated"].effect


def test_a_noisy_fair_scorer_is_seldom_called_biased(answers: Dataset) -> None:
    rng = np.random.default_rng(1)
    wrong = sum(
        any(effect.p_holm < 0.05 for effect in probe(answers, lambda pool: rng.normal(size=len(pool))))
        for _ in range(40)
    )
    assert wrong <= 8  # the original scores are shared by all edits, and their chance is theirs too


def test_rows_that_an_edit_leaves_alone_and_rows_without_a_score(answers: Dataset) -> None:
    half = Edit("half", lambda text: text + " more" if len(text) % 2 else text)
    [effect] = probe(answers, length, edits=[half])
    assert effect.rows == sum(len(text) % 2 for text in column(answers, "output"))

    def some(pool: Dataset) -> np.ndarray:
        return np.where(length(pool) > 10, length(pool), np.nan)

    [effect] = probe(answers, some, edits=[ENGLISH[0]])
    assert effect.rows == int(np.sum(length(answers) > 10))
    [effect] = probe(answers, lambda pool: np.ones(len(pool)), edits=[ENGLISH[0]])
    assert effect.rows == 0 and np.isnan(effect.effect)


def test_edited_rows_have_ids_of_their_own(answers: Dataset) -> None:
    seen: list[str] = []
    probe(answers, lambda pool: seen.extend(column(pool, "id")) or length(pool), edits=ENGLISH[:2])
    assert len(seen) == len(set(seen)) == 3 * len(answers)


def test_lists_and_code_are_left_as_they_are() -> None:
    listed = next(edit.apply for edit in ENGLISH if edit.name == "list formatting")
    assert listed("One. Two! Three?") == "- One.\n- Two!\n- Three?"
    for text in ("- a\n- b", "1. a\n2. b", "see\n```\ncode. more\n```"):
        assert listed(text) == text
    half = next(edit.apply for edit in ENGLISH if not edit.harmless)
    assert half("a b  c d e") == "a b" and half("one") == "one"


def test_the_world_has_words_for_its_edits() -> None:
    words = set(microworld.vocabulary(microworld.build_world(0)))
    for edit in WORLD:
        assert set(edit.apply("ok : red .").split()) <= words, edit.name


def test_the_same_seed_probes_the_same_rows(answers: Dataset) -> None:
    assert probe(answers, length, rows=20, seed=1) == probe(answers, length, rows=20, seed=1)
    assert probe(answers, length, rows=20, seed=1) != probe(answers, length, rows=20, seed=2)
