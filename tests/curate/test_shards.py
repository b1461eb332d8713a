"""Scores of several processes: the rows of one process, in the batches of one process, and the bytes of its output."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from curate.config import ScorerConfig
from curate.example import make_pool
from curate.scoring import cache
from curate.scoring.cache import cached_scores, restricted, shares
from curate.shards import score_shards
from tests.curate.test_cache import never, scorer

ROWS = [{"instruction": f"what is {n} ?", "input": "", "output": " ".join(["rain"] * (n % 37 + 1))} for n in range(600)]


def test_shares_are_whole_portions_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_PORTION", 3)
    rows = [9, 2, 7, 4, 1, 0, 8]
    assert shares(rows, 2) == [[9, 2, 7, 8], [4, 1, 0]]
    assert shares(rows, 1) == [rows]
    assert shares(rows, 64) == [[9, 2, 7], [4, 1, 0], [8]]


def test_a_share_is_asked_for_in_the_portions_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_PORTION", 4)
    sizes = np.random.default_rng(0).integers(1, 9, 30).tolist()
    keys = [str(row) for row in range(30)]

    def portions(keys: list[str], sizes: list[int]) -> list[list[str]]:
        asked: list[list[str]] = []

        def compute(parts):  # type: ignore[no-untyped-def]
            for rows in parts:
                asked.append([keys[row] for row in rows])
                yield cache.Batch(rows, [0.0] * len(rows), 0.0)

        cached_scores(None, "s", keys, compute, sizes=sizes)
        return asked

    with restricted() as listed:
        cached_scores(None, "s", keys, never, sizes=sizes)
    apart = []
    for share in shares(listed["s"], 3):
        apart += portions([keys[row] for row in share], [sizes[row] for row in share])
    assert sorted(apart) == sorted(portions(keys, sizes))


def test_only_the_named_scorer_computes_and_the_others_list_what_they_miss(tmp_path: Path) -> None:
    asked: list[int] = []
    cached_scores(tmp_path, "a", ["x"], scorer(asked))
    with restricted("b") as listed:
        assert np.isnan(cached_scores(tmp_path, "a", ["x", "y", "y"], never).values).tolist() == [False, True, True]
        assert cached_scores(tmp_path, "b", ["x", "y"], scorer(asked)).values.tolist() == [0, 1]
    assert listed == {"a": [1]}
    assert cached_scores(tmp_path, "a", ["y"], scorer(asked, plus=5)).values.tolist() == [5]  # no NaN was kept


def test_members_of_an_ensemble_are_shared_out_each(
    tmp_path: Path, reward_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = make_pool(ROWS[:40], "test")
    (tmp_path / "mine.py").write_text("def score(rows):\n    return [len(row['output']) for row in rows]\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(cache, "_PORTION", 8)
    members = [
        {"kind": "reward_model", "model": str(reward_model_folder), "template": "chapter"},
        {"kind": "own", "target": "mine.score"},
        {"kind": "length"},
    ]
    config = ScorerConfig.model_validate({"kind": "ensemble", "members": members})
    options = {"seed": 0, "template": {}, "cache": tmp_path, "shards": 2, "processes": 1, "cluster": None}
    score_shards(pool, config, **options)  # type: ignore[arg-type]
    with restricted() as missing:
        from curate.scoring import score

        score(pool, config, seed=0, template={}, cache=tmp_path)
    assert missing == {}
    assert not list((tmp_path / "jobs").iterdir())


def curate(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "curate", "data.path=in.json", "selection=top_k", "selection.k=200", *overrides]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=300)


@pytest.mark.soak  # five processes
def test_shards_side_by_side_write_the_bytes_of_one_process(tmp_path: Path, reward_model_folder: Path) -> None:
    (tmp_path / "in.json").write_text(json.dumps(ROWS))
    model = ("scorer=reward_model", f"scorer.model={reward_model_folder}")
    one = curate(tmp_path, *model, "out.path=one.json", "out.rejected=rest_one.json", "cache=one")
    assert one.returncode == 0, one.stderr
    several = ("shards=3", "launcher=local", "hydra.launcher.n_jobs=2")
    two = curate(tmp_path, *model, "out.path=two.json", "out.rejected=rest_two.json", "cache=two", *several)
    assert two.returncode == 0, two.stderr
    assert "scoring 600 rows in 3 shards" in two.stderr
    assert (tmp_path / "two.json").read_bytes() == (tmp_path / "one.json").read_bytes()
    assert (tmp_path / "rest_two.json").read_bytes() == (tmp_path / "rest_one.json").read_bytes()
    again = curate(tmp_path, *model, "out.path=again.json", "cache=two", *several)
    assert "shards" not in again.stderr  # nothing was left to score
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "one.json").read_bytes()
