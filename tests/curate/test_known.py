"""Scores that were paid for elsewhere."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from datasets import Dataset

from curate import UserError
from curate.example import column, make_pool
from curate.noise import corrupt
from curate.scoring.known import known_scores
from curate.writing import write_rows

ROWS = [{"instruction": f"Question {at}?", "input": "x" * (at % 2), "output": f"Answer {at}."} for at in range(6)]


@pytest.fixture
def pool() -> Dataset:
    return make_pool(ROWS, source="test")


def _written(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        pandas.DataFrame(rows).to_csv(path, index=False)
    else:
        pandas.DataFrame(rows).to_parquet(path)
    return path


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize("by", ["id", "text"])
def test_rows_are_found_by_id_or_by_what_they_say(
    tmp_path: Path, pool: Dataset, suffix: str, by: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = column(pool, "id")
    told = [{"id": id} for id in ids] if by == "id" else ROWS
    rows = [{**told[at], "score": at / 2} for at in (4, 1, 3)]
    path = _written(tmp_path / f"scores{suffix}", rows)
    assert known_scores(path, pool) == {ids[1]: 0.5, ids[3]: 1.5, ids[4]: 2.0}
    assert capsys.readouterr().err == f"score.import={path}: scores of 3 of 6 rows\n"


def test_what_this_program_wrote_is_read_again(tmp_path: Path, pool: Dataset) -> None:
    scored = pool.to_list()
    for at, row in enumerate(scored):
        row["score"] = float(at)
    write_rows(tmp_path / "scored.jsonl", make_pool(scored, source="test"))
    assert list(known_scores(tmp_path / "scored.jsonl", pool).values()) == [0, 1, 2, 3, 4, 5]


def test_a_score_belongs_to_a_text_and_not_to_what_the_text_was(tmp_path: Path, pool: Dataset) -> None:
    noisy = corrupt(pool, kind="truncated", rate=0.5, seed=1)
    dirty = np.array([kind is not None for kind in column(noisy, "noise_kind")])
    assert 0 < dirty.sum() < len(pool)
    clean_scores = _written(tmp_path / "clean.jsonl", [{"id": id, "score": 5} for id in column(pool, "id")])
    assert set(known_scores(clean_scores, noisy)) == set(np.array(column(pool, "id"))[~dirty])
    noisy_rows = [{**{k: row[k] for k in ("id", "instruction", "input", "output")}, "score": 1} for row in noisy]
    noisy_scores = _written(tmp_path / "noisy.jsonl", noisy_rows)
    assert len(known_scores(noisy_scores, noisy)) == len(pool)
    assert set(known_scores(noisy_scores, pool)) == set(np.array(column(pool, "id"))[~dirty])


def test_rows_without_a_score_are_passed_over_and_the_first_counts(tmp_path: Path, pool: Dataset) -> None:
    rows = [{**ROWS[0], "score": None}, {**ROWS[1], "score": 2}, {**ROWS[1], "score": 3}, {**ROWS[2]}]
    path = _written(tmp_path / "scores.jsonl", rows)
    assert known_scores(path, pool) == {column(pool, "id")[1]: 2.0}
    path.write_text("instruction,input,output,score\nQuestion 0?,,Answer 0.,\nQuestion 1?,x,Answer 1.,4.5\n")
    assert known_scores(path.rename(path.with_suffix(".csv")), pool) == {column(pool, "id")[1]: 4.5}


@pytest.mark.parametrize("score", ["good", True, [4], math.nan, math.inf])
def test_a_score_that_is_no_number(tmp_path: Path, pool: Dataset, score: Any) -> None:
    path = _written(tmp_path / "scores.jsonl", [{**ROWS[0], "score": 1}, {**ROWS[1], "score": score}])
    with pytest.raises(UserError, match=r"score.import=.*: line 2: score=.* is no number; mend the file"):
        known_scores(path, pool)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"id": "other", "score": 1}\n', "scores none of 6 rows"),
        ('{"id": "other"}\n', "scores none of 6 rows"),
        ("", "scores none of 6 rows"),
        ("{", "line 1: malformed JSON"),
        ("3\n", "line 1: expected an object with a score"),
    ],
)
def test_a_file_that_is_of_no_use(tmp_path: Path, pool: Dataset, text: str, message: str) -> None:
    (tmp_path / "scores.jsonl").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        known_scores(tmp_path / "scores.jsonl", pool)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path, pool: Dataset) -> None:
    with pytest.raises(UserError, match=r"score.import=.*no such file"):
        known_scores(tmp_path / "scores.jsonl", pool)
