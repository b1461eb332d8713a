"""Duplication, in every reading."""

from collections import Counter
from typing import Any

import pytest
from datasets import Dataset

from curate import UserError
from curate.duplicate import duplicate
from curate.example import column


def copies(pool: Dataset, **options: Any) -> Dataset:
    plain = {
        "mode": "replace",
        "rate": 0.25,
        "source": "random",
        "k": None,
        "kind": "exact",
        "stratum": None,
        "seed": 0,
    }
    return duplicate(pool, **{**plain, **options})


def counts(pool: Dataset) -> Counter[str]:
    return Counter(of for of in column(pool, "duplicate_of") if of)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.25, 1 / 3, 0.5, 0.75, 0.9])
def test_replace_keeps_the_size(pool: Dataset, rate: float) -> None:
    made = copies(pool, rate=rate)
    assert len(made) == 400
    assert sum(counts(made).values()) == round(rate * 400)
    originals = [row for row in made.to_list() if row["duplicate_of"] is None]
    assert len({row["id"] for row in originals}) == 400 - round(rate * 400)
    assert set(counts(made)) <= {row["id"] for row in originals}


@pytest.mark.parametrize("rate", [0.25, 1.0])
def test_append_keeps_every_row(pool: Dataset, rate: float) -> None:
    made = copies(pool, mode="append", rate=rate)
    assert len(made) == 400 + round(rate * 400)
    assert made.select(range(400)).to_list() == pool.to_list()


def test_copies_are_copies_with_ids_of_their_own(pool: Dataset) -> None:
    made = copies(pool, rate=0.9)
    rows = {row["id"]: row for row in made.to_list()}
    assert len(rows) == 400
    clean = {row["id"]: row for row in pool.to_list()}
    for row in rows.values():
        original = clean[row["duplicate_of"] or row["id"]]
        assert {**row, "id": original["id"], "duplicate_of": None} == original
        if row["duplicate_of"]:
            assert row["id"].startswith(f"{row['duplicate_of']}~")


def test_random_copies_are_spread_evenly(pool: Dataset) -> None:
    assert set(counts(copies(pool, rate=0.5)).values()) == {1}
    assert set(counts(copies(pool, rate=0.75)).values()) == {3}
    assert set(counts(copies(pool, rate=0.9)).values()) == {9}
    assert max(counts(copies(pool, rate=0.25)).values()) == 1


def test_concentrated_copies_come_from_k_rows(pool: Dataset) -> None:
    found = counts(copies(pool, rate=0.5, source="concentrated", k=16))
    assert len(found) == 16
    assert set(found.values()) == {12, 13}


def test_important_copies_come_from_the_stratum(pool: Dataset) -> None:
    made = copies(pool, rate=0.5, source="important", stratum="rare")
    assert {row["category"] for row in made.to_list() if row["duplicate_of"]} == {"rare"}
    found = counts(made)
    assert max(found.values()) - min(found.values()) <= 1
    assert len(counts(copies(pool, rate=0.25, source="important", stratum="rare", k=5))) == 5


@pytest.mark.parametrize("source", ["random", "concentrated"])
def test_rate_one_is_k_rows_filling_all_slots(pool: Dataset, source: str) -> None:
    made = copies(pool, rate=1.0, source=source, k=16)
    assert len(made) == 400
    assert len(set(column(made, "instruction"))) == 16
    assert set(Counter(column(made, "instruction")).values()) == {25}
    assert sum(counts(made).values()) == 384


def test_rate_one_of_a_stratum(pool: Dataset) -> None:
    made = copies(pool, rate=1.0, source="important", stratum="rare", k=10)
    assert set(column(made, "category")) == {"rare"}
    assert len(set(column(made, "instruction"))) == 10


def test_near_copies_reword_the_instruction_only(pool: Dataset) -> None:
    made = copies(pool, rate=0.75, kind="near", templates=["please, {instruction}", "{instruction} now"])
    clean = {row["id"]: row for row in pool.to_list()}
    wordings: Counter[str] = Counter()
    for row in made.to_list():
        if row["duplicate_of"]:
            original = clean[row["duplicate_of"]]
            assert row["output"] == original["output"]
            wordings[row["instruction"].replace(original["instruction"], "")] += 1
    assert wordings == {"please, ": 200, " now": 100}  # first, second, first again


def test_unique_rows_are_nested_and_seeded(pool: Dataset) -> None:
    def unique(rate: float, seed: int = 0) -> set[str]:
        return {row["id"] for row in copies(pool, rate=rate, seed=seed).to_list() if not row["duplicate_of"]}

    assert unique(0.75) < unique(0.5) < unique(0.25)
    assert unique(0.5) == unique(0.5) != unique(0.5, seed=1)


def test_no_copies_is_the_same_pool(pool: Dataset) -> None:
    assert copies(pool, rate=0.0) is pool


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 1.0}, "duplication.k=null: at rate 1.0"),
        ({"rate": 1.5}, r"duplication.rate=1.5: choose a rate in \[0, 1\]"),
        ({"kind": "near"}, "duplication.kind=near: needs data.paraphrases"),
        (
            {"source": "important", "stratum": "typo"},
            "duplication.stratum=typo: no row of this category; there are common,",
        ),
        ({"source": "concentrated", "k": 301}, "duplication.k=301: only 300 rows can be copied at rate 0.25"),
        ({"rate": 1.0, "k": 401, "source": "concentrated"}, "duplication.k=401: only 400 rows"),
        ({"mode": "insert"}, "duplication.mode=insert"),
    ],
)
def test_mistakes(pool: Dataset, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        copies(pool, **options)


def test_copies_of_copies_are_refused(pool: Dataset) -> None:
    with pytest.raises(UserError, match="holds copies already"):
        copies(copies(pool))
