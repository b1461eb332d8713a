"""Two processes on the CPU train what one process trains with the same batch, and leave a lost run together."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.train import together
from train import distributed, follower
from train.batches import IGNORED

# most of it happens in other processes, which are started once
pytestmark = pytest.mark.xdist_group("distributed")

ROOT = Path(__file__).resolve().parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes found, and the folder of their model."""
    from tests.conftest import WORDS
    from train.models import new_llama, word_tokenizer

    folder = tmp_path_factory.mktemp("together")
    tokenizer = word_tokenizer(WORDS)
    new_llama(tokenizer, hidden=32, layers=2, heads=2, mlp=64, positions=64, seed=0).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*TORCHRUN, "tests.train.together", str(folder)], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "found.json").read_text()), folder


@pytest.fixture(scope="module")
def one(two):
    """What this process finds alone, with the same model."""
    return together.trainings(two[1] / "base")


@pytest.mark.parametrize("case", ["plain", "between", "accumulated", "adapters"])
def test_two_processes_have_the_curve_of_one(one, two, case):
    alone, both = one[case], two[0][case]
    assert two[0]["processes"] == 2
    assert len(both["losses"]) == 12
    assert both["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert both["sizes"] == pytest.approx(alone["sizes"], rel=1e-5)
    assert both["tokens"] == alone["tokens"] and both["row_tokens"] == alone["row_tokens"]


def test_a_run_that_fails_on_the_first_process_is_left_by_all(one, two):
    # that the cases after them are right says that nobody was left behind
    assert one["full disk"] == two[0]["full disk"] == {"error": "no space left on device"}
    assert one["diverged"] == two[0]["diverged"]
    assert "the loss is not finite at step" in two[0]["diverged"]["error"]


def test_a_batch_or_an_order_that_cannot_be_shared_is_the_users_to_mend(one, two):
    assert two[0]["too many"]["error"] == "training.accumulate=8: 1 rows for 2 processes; lower it to 4 at most"
    assert two[0]["by length"]["error"].startswith("training.group_by_length=true: ")
    assert "error" not in one["too many"] and "error" not in one["by length"]


def test_what_the_others_are_not_called_to_is_trained_alone(two):
    assert len(two[0]["between"]["losses"]) == 12


def test_a_follower_does_what_it_is_called_to_and_leaves_ctrl_c_to_the_first(monkeypatch):
    calls, done = iter(["one", "two", None]), []
    monkeypatch.setattr(distributed, "heard", lambda: next(calls))
    monkeypatch.setattr(follower, "take_part", lambda wanted: done.append((wanted, signal.getsignal(signal.SIGINT))))
    before = signal.getsignal(signal.SIGINT)
    try:
        assert follower.follow() == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert done == [("one", signal.SIG_IGN), ("two", signal.SIG_IGN)]


def test_those_who_are_gone_need_not_be_sent_home(monkeypatch):
    def gone(value):
        raise RuntimeError("connection closed by peer")

    monkeypatch.setattr(distributed, "launched", lambda: 2)
    monkeypatch.setattr(distributed, "say", gone)
    follower.release()


def test_every_row_is_somebodys(monkeypatch):
    rows = [{"input_ids": [i, 1], "labels": [IGNORED, 1]} for i in range(5)]
    assert distributed.share(rows) is rows
    monkeypatch.setattr(distributed, "processes", lambda: 2)
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        parts.append(distributed.share(rows))
    assert sorted(row["input_ids"][0] for part in parts for row in part) == [0, 1, 2, 3, 4]
    assert distributed.share(rows[:1]) == [{"input_ids": [0, 1], "labels": [IGNORED, IGNORED]}]


def test_after_a_failure_in_the_middle_of_a_step_nothing_more_is_called_for(monkeypatch):
    monkeypatch.setattr(distributed, "_place", {"RANK": "0"})
    monkeypatch.setattr(distributed, "processes", lambda: 2)
    assert distributed.out_of_step() is False
    monkeypatch.setattr(distributed, "_out_of_step", False)
    training = together.TrainingConfig(steps=1, points=[], batch_size=8, lr=1e-3, warmup=0, max_length=8)
    with pytest.raises(MemoryError), distributed.together(training):
        raise MemoryError
    assert distributed.out_of_step()
    with pytest.raises(RuntimeError, match="start again"):
        distributed.say("a training")
