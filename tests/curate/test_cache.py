"""A score once paid for is never paid for again."""

import math
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from curate import UserError
from curate.scoring.cache import Batch, Portions, Scores, cached_scores

Compute = Callable[[Portions], Iterator[Batch]]


def scorer(asked: list[int], batch: int = 2, plus: float = 0.0) -> Compute:
    """Scores a row by its number; notes in `asked` what it was asked for; a row costs 0.5 s."""

    def compute(portions: Portions) -> Iterator[Batch]:
        for rows in portions:
            asked.extend(rows)
            for start in range(0, len(rows), batch):
                some = rows[start : start + batch]
                yield Batch(some, [row + plus for row in some], 0.5 * len(some))

    return compute


def never(_: Portions) -> Iterator[Batch]:
    raise AssertionError("nothing is left to compute")


@pytest.mark.parametrize("cached", [True, False])
def test_equal_rows_are_scored_once(tmp_path: Path, cached: bool) -> None:
    asked: list[int] = []
    scores = cached_scores(tmp_path if cached else None, "s", ["a", "b", "a", "c", "b"], scorer(asked))
    assert asked == [0, 1, 3]
    assert scores.values.tolist() == [0, 1, 0, 3, 1]
    assert (scores.seconds, scores.computed) == (1.5, 3)


def test_only_what_is_missing_is_computed_and_costs_stay_true(tmp_path: Path) -> None:
    asked: list[int] = []
    cached_scores(tmp_path, "s", ["a", "b"], scorer(asked))
    again = cached_scores(tmp_path, "s", ["c", "b", "a"], scorer(asked, plus=10.0))
    assert asked == [0, 1, 0]
    assert again.values.tolist() == [10, 1, 0]
    assert (again.seconds, again.computed) == (1.5, 1)
    last = cached_scores(tmp_path, "s", ["a", "b", "c"], never)
    assert (last.values.tolist(), last.seconds, last.computed) == ([0, 1, 10], 1.5, 0)


def test_scorers_do_not_share(tmp_path: Path) -> None:
    cached_scores(tmp_path, "one", ["a"], scorer([]))
    assert cached_scores(tmp_path, "two", ["a"], scorer([], plus=5.0)).values.tolist() == [5]


def test_nan_is_a_score_too(tmp_path: Path) -> None:
    def compute(portions: Portions) -> Iterator[Batch]:
        yield Batch(next(portions), [math.nan, -math.inf], 1.0, reasons={0: "no word in it"}, tokens=8, dollars=0.5)

    for _ in range(2):
        scores = cached_scores(tmp_path, "s", ["a", "b"], compute)
        assert np.isnan(scores.values[0])
        assert scores.values[1] == -math.inf
        assert (scores.reasons, scores.tokens, scores.dollars) == ({0: "no word in it"}, 8, 0.5)
        compute = never


def test_many_keys(tmp_path: Path) -> None:
    keys = [f"k{at}" for at in range(1801)]
    cached_scores(tmp_path, "s", keys, scorer([], batch=1000))
    assert cached_scores(tmp_path, "s", keys, never).values.tolist() == list(range(1801))
    assert len(cached_scores(tmp_path, "s", [], never).values) == 0


def test_an_error_in_the_middle_keeps_finished_batches(tmp_path: Path) -> None:
    def failing(portions: Portions) -> Iterator[Batch]:
        yield Batch(next(portions)[:2], [0.0, 1.0], 1.0)
        raise RuntimeError("the machine went away")

    with pytest.raises(RuntimeError):
        cached_scores(tmp_path, "s", ["a", "b", "c"], failing)
    asked: list[int] = []
    assert cached_scores(tmp_path, "s", ["a", "b", "c"], scorer(asked)).values.tolist() == [0, 1, 2]
    assert asked == [2]


def test_kill_in_the_middle_keeps_finished_batches(tmp_path: Path) -> None:
    program = f"""
        import os, signal
        from pathlib import Path
        from curate.scoring.cache import Batch, cached_scores

        def compute(portions):
            for row in next(portions):
                if row == 3:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield Batch([row], [float(row)], 1.0)

        cached_scores(Path({str(tmp_path)!r}), "s", list("abcdef"), compute)
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(program)]).returncode == -signal.SIGKILL
    asked: list[int] = []
    scores = cached_scores(tmp_path, "s", list("abcdef"), scorer(asked))
    assert asked == [3, 4, 5]
    assert scores.values.tolist() == [0, 1, 2, 3, 4, 5]


def test_two_processes_share_a_pool_and_score_no_row_twice(tmp_path: Path) -> None:
    program = """
        import sys, time
        from pathlib import Path
        from curate.scoring import cache

        def compute(portions):
            for rows in portions:
                for row in rows:
                    time.sleep(0.002)
                    yield cache.Batch([row], [float(row)], 0.0)

        cache._PORTION = 7
        keys = [f"k{at}" for at in range(300)]
        scores = cache.cached_scores(Path(sys.argv[1]), "s", keys, compute)
        assert scores.values.tolist() == list(range(300))
        print(scores.computed)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    computed = [int(writer.communicate(timeout=120)[0]) for writer in writers]
    assert sum(computed) == 300


@pytest.mark.parametrize(
    ("owner", "age", "taken_over"),
    [
        (f"{socket.gethostname()}:999999:1.00", 0.0, True),  # no such process
        (f"{socket.gethostname()}:{os.getppid()}:1.00", 0.0, True),  # another one has its number now
        ("elsewhere:1:1.00", 10_000.0, True),
        ("elsewhere:1:1.00", 0.0, False),
    ],
)
def test_claims_of_the_dead_are_taken_over(tmp_path: Path, owner: str, age: float, taken_over: bool) -> None:
    cached_scores(tmp_path, "s", ["a"], scorer([]))
    with sqlite3.connect(tmp_path / "scores" / "s.sqlite") as db:
        db.execute("INSERT INTO claims VALUES ('b', ?, ?)", (owner, time.time() - age))
    asked: list[int] = []

    def other_finishes(portions: Portions) -> Iterator[Batch]:
        with sqlite3.connect(tmp_path / "scores" / "s.sqlite") as db:
            db.execute("INSERT INTO scores VALUES ('b', 42, NULL, 0, 0, 0)")
        yield from scorer(asked)(portions)

    found: Scores = cached_scores(tmp_path, "s", ["a", "b"], scorer(asked) if taken_over else other_finishes)
    assert found.values.tolist() == ([0, 1] if taken_over else [0, 42])
    assert asked == ([1] if taken_over else [])


def test_known_scores_are_not_computed(tmp_path: Path) -> None:
    asked: list[int] = []
    scores = cached_scores(tmp_path, "s", ["a", "b"], scorer(asked), known={"a": 4.5})
    assert (scores.values.tolist(), asked, scores.seconds) == ([4.5, 1], [1], 0.5)


def test_large_rows_come_first() -> None:
    asked: list[int] = []
    cached_scores(None, "s", ["a", "b", "c"], scorer(asked), sizes=[1, 3, 2])
    assert asked == [1, 2, 0]


def test_a_writer_that_comes_second_returns_the_first_score(tmp_path: Path) -> None:
    def late(portions: Portions) -> Iterator[Batch]:
        rows = next(portions)
        cached_scores(tmp_path, "s", ["a"], scorer([], plus=7.0))  # another machine, taken for dead, was faster
        yield Batch(rows, [1.0], 1.0)

    assert cached_scores(tmp_path, "s", ["a"], late).values.tolist() == [7]


def test_an_unusable_cache_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"score cache .*not a directory; free space"):
        cached_scores(tmp_path / "file", "s", ["a"], scorer([]))


def test_a_damaged_cache_is_set_aside_and_begun_again(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    keys = [f"{i:064}" for i in range(2000)]
    first = cached_scores(tmp_path, "s", keys, scorer([])).values.tolist()
    file = tmp_path / "scores" / "s.sqlite"
    whole = file.read_bytes()
    for harmed in (b"this is no database" * 100, whole[:8192] + bytes(8192) + whole[16384:], whole[: len(whole) // 2]):
        file.write_bytes(harmed)
        called: list = []
        assert cached_scores(tmp_path, "s", keys, scorer(called)).values.tolist() == first
        assert called
        assert (tmp_path / "scores" / "s.sqlite.corrupt").read_bytes()[:1000] == harmed[:1000]
        assert "set aside as s.sqlite.corrupt, its rows are scored again" in capfd.readouterr().err
    assert cached_scores(tmp_path, "s", keys, scorer([])).computed == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_is_not_writable(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="score cache"):
        cached_scores(tmp_path, "s", ["a"], scorer([]))


def test_a_disk_that_fills_up_keeps_what_is_stored(tmp_path: Path) -> None:
    program = f"""
        import resource, sys
        from pathlib import Path
        from curate import UserError
        from curate.scoring.cache import Batch, cached_scores

        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

        def compute(portions):
            for rows in portions:
                for row in rows:
                    yield Batch([row], [float(row)], 1.0)

        try:
            cached_scores(Path({str(tmp_path)!r}), "s", [f"{{at:030}}" for at in range(2000)], compute)
        except UserError as error:
            sys.exit(str(error))
    """
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert ended.stderr.startswith("score cache ")
    assert ended.stderr.count("\n") == 1
    with sqlite3.connect(tmp_path / "scores" / "s.sqlite") as db:
        assert db.execute("SELECT COUNT(*) FROM scores").fetchone()[0] > 50
