"""Corruption with a ledger: the exact rate, nested, and true."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from datasets import Dataset

from curate import UserError
from curate.example import column, make_pool, pool_hash
from curate.noise import KINDS, SINGLE_KINDS, corrupt, hardness

NOISY = KINDS[1:]


@pytest.mark.parametrize("kind", NOISY)
@pytest.mark.parametrize("rate", [0.0, 0.001, 0.2, 1 / 3, 0.499, 1.0])
def test_the_rate_is_exact(pool: Dataset, kind: str, rate: float) -> None:
    noisy = corrupt(pool, kind=kind, rate=rate, seed=3)
    kinds = column(noisy, "noise_kind")
    assert sum(noise is not None for noise in kinds) == round(rate * len(pool))
    single = {kind} if kind in (*SINGLE_KINDS, "contradictory") else set(SINGLE_KINDS)
    assert set(kinds) - {None} <= single | {"swapped_response"}


@pytest.mark.parametrize("kind", [kind for kind in NOISY if kind != "contradictory"])
def test_the_ledger_tells_the_truth(pool: Dataset, kind: str) -> None:
    noisy = corrupt(pool, kind=kind, rate=0.6, seed=1)
    for before, after in zip(pool.to_list(), noisy.to_list(), strict=True):
        assert {name: after[name] for name in after if name not in ("output", "noise_kind", "clean_output")} == {
            name: before[name] for name in before if name not in ("output", "noise_kind", "clean_output")
        }
        if after["noise_kind"] is None:
            assert (after["output"], after["clean_output"]) == (before["output"], None)
        else:
            assert after["clean_output"] == before["output"] != after["output"]
            assert after["output"].strip()


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_contradictory_prompts_stand_twice_with_two_answers(pool: Dataset, rate: float) -> None:
    noisy = corrupt(pool, kind="contradictory", rate=rate, seed=1)
    clean = {(row["instruction"], row["input"]): row["output"] for row in pool.to_list()}
    rows = noisy.to_list()
    right = {(row["instruction"], row["input"]): row["output"] for row in rows if row["noise_kind"] is None}
    wrong = [row for row in rows if row["noise_kind"] == "contradictory"]
    assert len(wrong) == round(rate * len(pool))
    for row in wrong:
        asked = (row["instruction"], row["input"])
        assert right[asked] == clean[asked] == row["clean_output"] != row["output"]
    for before, after in zip(pool.to_list(), rows, strict=True):
        assert after["id"] == before["id"]
        assert after == before or after["noise_kind"]


@pytest.mark.parametrize("kind", NOISY)
def test_levels_are_nested(pool: Dataset, kind: str) -> None:
    levels = [corrupt(pool, kind=kind, rate=rate, seed=5) for rate in (0.1, 0.2, 0.5, 0.9)]
    for low, high in pairwise(levels):
        below = {row["id"]: row for row in low.to_list() if row["noise_kind"]}
        above = {row["id"]: row for row in high.to_list() if row["noise_kind"]}
        assert len(below) < len(above)
        assert below == {row: above[row] for row in below}


def test_seeds_decide_and_nothing_else(pool: Dataset) -> None:
    first = pool_hash(corrupt(pool, kind="mixture", rate=0.3, seed=1))
    assert pool_hash(corrupt(pool, kind="mixture", rate=0.3, seed=1)) == first
    assert pool_hash(corrupt(pool, kind="mixture", rate=0.3, seed=2)) != first


def test_no_noise_is_the_same_pool(pool: Dataset) -> None:
    assert corrupt(pool, kind="none", rate=0.5, seed=0) is pool
    assert corrupt(pool, kind="mixture", rate=0.0, seed=0) is pool


def test_swapped_responses_come_from_other_rows(pool: Dataset) -> None:
    clean = set(column(pool, "output"))
    noisy = corrupt(pool, kind="swapped_response", rate=1.0, seed=0)
    assert set(column(noisy, "output")) <= clean
    assert len(set(column(noisy, "output"))) > 200  # and not all from one


def test_a_swap_does_not_give_the_same_answer_in_other_words() -> None:
    rows = [{"instruction": f"q{at}", "output": "ok : red ."} for at in range(20)]
    rows += [
        {"instruction": "long", "output": "ok : red , since it is red ."},
        {"instruction": "b", "output": "ok : blue ."},
    ]
    noisy = corrupt(make_pool(rows, source="s"), kind="swapped_response", rate=1.0, seed=0)
    assert set(column(noisy, "output")[:21]) == {"ok : blue ."}


def test_near_misses_that_are_ready_are_taken() -> None:
    rows = [{"instruction": f"q{at}", "output": f"ok : {at} .", "near_miss": f"ok : {at + 1} ."} for at in range(10)]
    noisy = corrupt(make_pool(rows, source="s"), kind="near_miss", rate=1.0, seed=0)
    assert column(noisy, "output") == [f"ok : {at + 1} ." for at in range(10)]


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("It has 12 legs and a tail.", "It has 99 legs and a tail."),
        ("1. It was found by Pasteur.", "1. It was found by Darwin."),
        ("they eat grass", None),  # one of the two content words
        ("no", None),
    ],
)
def test_generic_near_misses_change_one_detail(text: str, changed: str | None) -> None:
    other = {"instruction": "other", "output": "In 1999: we saw Darwin with swans. Or 99"}
    other["output"] = "Only 99 of them met Darwin with some swans"
    noisy = corrupt(make_pool([{"instruction": "q", "output": text}, other], "s"), kind="near_miss", rate=1.0, seed=4)
    got = column(noisy, "output")[0]
    assert column(noisy, "noise_kind")[0] == "near_miss"
    assert changed is None or got == changed
    assert sum(a != b for a, b in zip(text.split(), got.split(), strict=True)) == 1


def test_truncation_keeps_a_share_of_the_words_and_cuts_the_last_one() -> None:
    outputs = [
        " ".join(f"w{step}" for step in range(count)) + tail for count in range(2, 60) for tail in ("", ".", " .")
    ]
    pool = make_pool([{"instruction": f"q{at}", "output": text} for at, text in enumerate(outputs)], source="s")
    noisy = corrupt(pool, kind="truncated", rate=1.0, seed=0)
    for clean, cut in zip(outputs, column(noisy, "output"), strict=True):
        words, kept = clean.split(), cut.split()
        last = words[-2] if words[-1] == "." else words[-1]
        assert kept == words[: len(kept)]
        assert last not in kept
        assert 1 <= len(kept) <= 0.7 * len(words) or len(kept) == 1
        assert len(kept) >= int(0.3 * len(words))


def test_truncation_of_single_words_and_letters() -> None:
    rows = [{"instruction": str(at), "output": text} for at, text in enumerate(["Paris.", "Yes .", "4", "x."])]
    noisy = corrupt(make_pool(rows, source="s"), kind="truncated", rate=1.0, seed=0)
    assert column(noisy, "noise_kind") == ["truncated", "truncated", "swapped_response", "swapped_response"]
    assert "Paris".startswith(column(noisy, "output")[0])
    assert "Yes".startswith(column(noisy, "output")[1])


@pytest.mark.parametrize(
    ("clean", "off"),
    [
        ("ok : red .", "red"),
        ("ok : 4 2 , since the age of bo is 4 2 .", "4 2 since the age of bo is 4 2"),
        ("Here they are:\n1. Milk, fresh\n2. Pi = 3.14", "Here they are 1 Milk fresh 2 Pi = 3.14"),
        ("Paris", "Paris Paris"),
        (".", ". ."),
    ],
)
def test_off_format_keeps_the_answer(clean: str, off: str) -> None:
    pool = make_pool([{"instruction": "q", "output": clean}], source="s")
    assert column(corrupt(pool, kind="off_format", rate=1.0, seed=0), "output") == [off]


def test_a_mixture_is_even(pool: Dataset) -> None:
    counts = Counter(column(corrupt(pool, kind="mixture", rate=1.0, seed=0), "noise_kind"))
    assert set(counts) == set(SINGLE_KINDS)
    assert all(70 < count < 130 for count in counts.values())


def test_correlated_noise_prefers_hard_rows(pool: Dataset) -> None:
    hard = hardness(pool)
    assert hard.min() >= 0
    assert hard.max() <= 1
    rare = np.array([name == "rare" for name in column(pool, "category")])
    lengths = np.array([len(text.split()) for text in column(pool, "output")])
    shares, words = [], []
    for seed in range(20):
        noisy = np.array(
            [kind is not None for kind in column(corrupt(pool, kind="correlated", rate=0.2, seed=seed), "noise_kind")]
        )
        assert noisy.sum() == 80
        shares.append(noisy[rare].mean())
        words.append(lengths[noisy].mean() - lengths[~noisy].mean())
    assert np.mean(shares) > 0.3  # against 0.2 without correlation
    assert np.mean(words) > 3


def test_mistakes(pool: Dataset) -> None:
    with pytest.raises(UserError, match=r"noise.rate=1.1: choose"):
        corrupt(pool, kind="mixture", rate=1.1, seed=0)
    with pytest.raises(UserError, match=r"noise.kind=typo: choose one of"):
        corrupt(pool, kind="typo", rate=0.1, seed=0)
    with pytest.raises(UserError, match="corrupted already"):
        corrupt(corrupt(pool, kind="mixture", rate=0.1, seed=0), kind="mixture", rate=0.1, seed=0)
    same = make_pool([{"instruction": str(at), "output": "yes"} for at in range(3)], source="s")
    with pytest.raises(UserError, match="every response of the pool is the same"):
        corrupt(same, kind="swapped_response", rate=1.0, seed=0)
