"""Selection and its matched controls."""

import json
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from curate import UserError
from curate.example import column, make_pool
from curate.noise import corrupt
from curate.scoring.surface import length
from curate.select import KINDS, select


def scores_of(pool: Dataset, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=len(pool))


def test_top_k_keeps_the_best_in_pool_order(pool: Dataset) -> None:
    scores = scores_of(pool)
    kept = select(pool, kind="top_k", seed=0, scores=scores, k=50)
    assert len(kept) == 50
    assert kept.tolist() == sorted(kept.tolist())
    assert scores[kept].min() > np.delete(scores, kept).max()


def test_top_fraction_is_rounded(pool: Dataset) -> None:
    scores = scores_of(pool)
    assert len(select(pool, kind="top_fraction", seed=0, scores=scores, fraction=0.177)) == 71
    assert len(select(pool, kind="top_fraction", seed=0, scores=scores, fraction=0.0001)) == 1
    assert len(select(pool, kind="top_fraction", seed=0, scores=scores, fraction=0.5, k=70)) == 70


def test_ties_are_broken_by_pool_order() -> None:
    pool = make_pool([{"instruction": str(at), "output": "a"} for at in range(6)], source="s")
    scores = np.array([1.0, 2.0, 1.0, 1.0, 2.0, 0.0])
    assert select(pool, kind="top_k", seed=0, scores=scores, k=3).tolist() == [0, 1, 4]
    assert select(pool, kind="top_k", seed=9, scores=scores, k=4).tolist() == [0, 1, 2, 4]


def test_threshold_keeps_equal_and_better() -> None:
    pool = make_pool([{"instruction": str(at), "output": "a"} for at in range(4)], source="s")
    scores = np.array([1.5, 1.4999999, np.nan, 7.0])
    assert select(pool, kind="threshold", seed=0, scores=scores, threshold=1.5).tolist() == [0, 3]
    with pytest.raises(
        UserError, match=r"selection.threshold=8: keeps none of 4 rows \(the best score is 7\); lower it"
    ):
        select(pool, kind="threshold", seed=0, scores=scores, threshold=8.0)


@pytest.mark.parametrize("kind", ["threshold", "top_k", "top_fraction", "stratified", "random_length_matched"])
def test_rows_without_a_score_are_never_chosen_for_it(pool: Dataset, kind: str) -> None:
    scores = scores_of(pool)
    scores[::2] = np.nan
    kept = select(pool, kind=kind, seed=0, scores=scores, k=150, threshold=-1.0)
    if kind != "random_length_matched":  # its rows are drawn at random, only the lengths come from the scores
        assert not np.isnan(scores[kept]).any()
    if kind != "threshold":
        assert len(kept) == 150
        with pytest.raises(UserError, match=r"selection.k=201: there are 200 rows with a score"):
            select(pool, kind=kind, seed=0, scores=scores, k=201)


def test_no_row_has_a_score(pool: Dataset) -> None:
    with pytest.raises(UserError, match="no row has a score"):
        select(pool, kind="threshold", seed=0, scores=np.full(len(pool), np.nan), threshold=0.0)


@pytest.mark.parametrize("kind", ["random", "random_length_matched", "clean"])
def test_draws_are_by_seed_and_nested(pool: Dataset, kind: str) -> None:
    pool = corrupt(pool, kind="mixture", rate=0.25, seed=0)
    scores = scores_of(pool)

    def draw(seed: int, k: int) -> set[int]:
        kept = select(pool, kind=kind, seed=seed, scores=scores, k=k).tolist()
        assert len(set(kept)) == len(kept) == k
        return set(kept)

    assert draw(1, 100) == draw(1, 100) != draw(2, 100)
    assert draw(1, 50) < draw(1, 100)


def test_random_is_uniform(pool: Dataset) -> None:
    draws = [select(pool, kind="random", seed=seed, k=100) for seed in range(400)]
    counts = np.bincount(np.concatenate(draws), minlength=400)
    assert 60 < counts.min() < counts.mean() == 100 < counts.max() < 145


def test_longest(pool: Dataset) -> None:
    words = length(pool)
    kept = select(pool, kind="longest", seed=0, k=30)
    assert words[kept].min() >= np.delete(words, kept).max()


def test_clean_draws_rows_without_noise(pool: Dataset) -> None:
    noisy = corrupt(pool, kind="mixture", rate=0.75, seed=0)
    kept = select(noisy, kind="clean", seed=0, fraction=0.177)
    assert len(kept) == 71
    assert {column(noisy, "noise_kind")[row] for row in kept} == {None}
    with pytest.raises(UserError, match=r"selection.k=101: there are 100 clean rows"):
        select(noisy, kind="clean", seed=0, k=101)


def test_the_matched_control_has_the_lengths_of_the_best() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(4, 14, 2000)
    rows = [{"instruction": str(at), "output": " ".join("w" * count)} for at, count in enumerate(counts)]
    pool = make_pool(rows, source="s")
    scores = counts + rng.normal(0, 2, 2000)  # prefers long responses
    best = select(pool, kind="top_k", seed=0, scores=scores, k=300)
    kept = select(pool, kind="random_length_matched", seed=0, scores=scores, k=300)
    assert Counter(counts[kept]) == Counter(counts[best])
    assert counts[kept].mean() > counts.mean() + 1
    # but not its rows: no more of them than chance within equal lengths gives
    expected = sum(count**2 / (counts == words).sum() for words, count in Counter(counts[best]).items())
    assert abs(len(set(kept) & set(best)) - expected) < 0.25 * expected


def test_the_matched_control_is_no_copy_where_every_length_is_rare(pool: Dataset) -> None:
    rows = [{"instruction": str(at), "output": " ".join(["w"] * (at + 1))} for at in range(400)]
    pool = make_pool(rows, source="s")
    scores = scores_of(pool)
    best = select(pool, kind="top_k", seed=0, scores=scores, k=80)
    kept = select(pool, kind="random_length_matched", seed=0, scores=scores, k=80)
    assert len(kept) == 80
    assert len(set(kept) & set(best)) < 45
    assert np.abs(np.sort(kept) - np.sort(best)).max() < 10  # the lengths agree to a bin's width


def test_all_keeps_everything_without_a_warning(pool: Dataset) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert select(pool, kind="all", seed=0).tolist() == list(range(400))


def test_keeping_everything_and_constant_scores_are_said_aloud(pool: Dataset) -> None:
    with pytest.warns(UserWarning, match="keeps all 400 rows"):
        select(pool, kind="threshold", seed=0, scores=scores_of(pool), threshold=-99.0)
    with pytest.warns(UserWarning, match="keeps all 400 rows"):
        select(pool, kind="top_k", seed=0, scores=scores_of(pool), k=400)
    with pytest.warns(UserWarning, match="all scores equal 2"):
        assert select(pool, kind="top_k", seed=0, scores=np.full(400, 2.0), k=3).tolist() == [0, 1, 2]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("all", "threshold", "band", "from_file")])
def test_mistakes_in_size(pool: Dataset, kind: str) -> None:
    scores = scores_of(pool)
    for k in (0, -1, 401):
        with pytest.raises(UserError, match=f"selection.k={k}: the pool has 400 rows"):
            select(pool, kind=kind, seed=0, scores=scores, k=k)
    with pytest.raises(UserError, match=r"selection.fraction=1.5: choose"):
        select(pool, kind=kind, seed=0, scores=scores, fraction=1.5)
    with pytest.raises(UserError, match=r"selection.k=null: how many rows"):
        select(pool, kind=kind, seed=0, scores=scores)


def test_other_mistakes(pool: Dataset) -> None:
    with pytest.raises(UserError, match=r"selection.kind=best: choose one of"):
        select(pool, kind="best", seed=0)
    with pytest.raises(UserError, match="needs scores"):
        select(pool, kind="top_k", seed=0, k=3)
    with pytest.raises(UserError, match=r"selection.threshold=null"):
        select(pool, kind="threshold", seed=0, scores=scores_of(pool))
    with pytest.raises(ValueError, match="scores have shape"):
        select(pool, kind="top_k", seed=0, scores=np.zeros(3), k=3)


def test_a_band_leaves_out_both_ends(pool: Dataset) -> None:
    scores = scores_of(pool)
    kept = select(pool, kind="band", seed=0, scores=scores, low=0.5, high=0.9)
    least, most = np.quantile(scores, [0.5, 0.9])
    assert sorted(scores[kept]) == sorted(s for s in scores if least <= s <= most)
    assert 0.3 * len(pool) < len(kept) < 0.5 * len(pool)


def test_stratified_keeps_the_mixture_and_the_best_of_each() -> None:
    names = ["a"] * 60 + ["b"] * 30 + ["c"] * 10
    pool = make_pool([{"instruction": str(at), "output": "x", "category": name} for at, name in enumerate(names)], "s")
    scores = np.arange(100.0)[::-1].copy()  # all of "a" are better than all of "b"
    kept = select(pool, kind="stratified", seed=0, scores=scores, k=10)
    assert kept.tolist() == [0, 1, 2, 3, 4, 5, 60, 61, 62, 90]
    scores[90:] = np.nan  # nobody could score "c": its place goes to who is owed most
    kept = select(pool, kind="stratified", seed=0, scores=scores, k=10)
    assert sorted(names[row] for row in kept) == ["a"] * 7 + ["b"] * 3 or len(kept) == 10
    assert not set(kept.tolist()) & set(range(90, 100))


def test_diverse_rows_cover_every_cluster() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(5, 16)
    points = np.repeat(centres, [50, 20, 10, 5, 3], axis=0) + rng.normal(0, 0.05, (88, 16))
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    pool = make_pool([{"instruction": str(at), "output": "x"} for at in range(88)], "s")
    cluster = np.repeat(np.arange(5), [50, 20, 10, 5, 3])
    kept = select(pool, kind="diversity", seed=0, embeddings=points, k=5)
    assert sorted(cluster[kept]) == [0, 1, 2, 3, 4]
    scores = np.where(cluster == 4, 0.0, 1.0)  # the last cluster is below the floor
    kept = select(pool, kind="diversity", seed=0, embeddings=points, scores=scores, floor=0.5, k=4)
    assert sorted(cluster[kept]) == [0, 1, 2, 3]
    with pytest.raises(UserError, match=r"^selection.floor=0.5: 85 rows reach it; lower it, or selection.k=86"):
        select(pool, kind="diversity", seed=0, embeddings=points, scores=scores, floor=0.5, k=86)
    with pytest.raises(UserError, match="needs embeddings"):
        select(pool, kind="diversity", seed=0, k=5)


def test_diverse_rows_do_not_depend_on_anything_but_the_seed(pool: Dataset) -> None:
    points = np.random.default_rng(1).normal(size=(len(pool), 8)).astype(np.float32)
    first = select(pool, kind="diversity", seed=3, embeddings=points, k=20)
    assert len(set(first.tolist())) == 20
    assert (select(pool, kind="diversity", seed=3, embeddings=points, k=20) == first).all()


def test_somebody_elses_selection_is_found_by_what_rows_say(tmp_path: Path) -> None:
    pool = make_pool([{"instruction": f"q{at}", "input": "", "output": f"a{at}"} for at in range(6)], "s")
    (tmp_path / "a.json").write_text(json.dumps([{"instruction": "q1", "output": "a1"}, {"id": pool[4]["id"]}, 7]))
    assert select(pool, kind="from_file", seed=0, path=str(tmp_path / "a.json")).tolist() == [1, 4]
    (tmp_path / "b.json").write_text(json.dumps([{"instruction": "q1", "output": "a2"}]))
    with pytest.raises(UserError, match=r"^selection.path=.*b.json: holds no row of the pool"):
        select(pool, kind="from_file", seed=0, path=str(tmp_path / "b.json"))


def test_a_part_of_somebody_elses_selection_is_drawn_by_the_seed(tmp_path):
    pool = make_pool([{"instruction": f"q{i}", "output": "a"} for i in range(30)], "test")
    (tmp_path / "theirs.json").write_text(json.dumps([{"id": i} for i in pool["id"][5:25]]))
    first, second = (select(pool, kind="from_file", seed=s, k=6, path=str(tmp_path / "theirs.json")) for s in (0, 1))
    assert len(first) == len(second) == 6 and set(first) | set(second) <= set(range(5, 25))
    assert first.tolist() != second.tolist()
    more = select(pool, kind="from_file", seed=0, k=12, path=str(tmp_path / "theirs.json"))
    assert set(first) <= set(more)
    with pytest.raises(UserError, match="there are 20 rows of the pool in that file"):
        select(pool, kind="from_file", seed=0, k=21, path=str(tmp_path / "theirs.json"))
