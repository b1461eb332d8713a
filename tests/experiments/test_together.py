"""torchrun around the command: runs share their batches, one process writes the store, and mistakes stay one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import run as command
from experiments import store
from experiments.config import run_id
from tests.experiments.runs import run
from train import distributed, follower

ROOT = Path(__file__).resolve().parents[2]
WORLD = ["data=world_text", "model=scratch", "training=world_text", "evaluation=world_text", "seed.pair=0"]


@pytest.mark.soak
def test_a_run_of_two_processes_is_that_of_one(make, tmp_path):
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    asked = ["-m", "experiments.run", "debug=tiny", "tracking=none", f"store.root={tmp_path}", *WORLD]
    done = subprocess.run(
        [*launched, *asked, "arm=full,corrupted"],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 to do") == 1  # the others plan nothing, and say nothing
    for arm in ("full", "corrupted"):
        config = make(*WORLD, f"arm={arm}")
        alone, folder = run(config)
        shared = tmp_path / run_id(config)
        found = store.read(shared)
        assert found is not None
        assert found["points"] == alone["points"]
        assert found["environment"]["processes"] == "2" and "processes" not in alone["environment"]
        assert found["cost"]["tokens_seen"] == alone["cost"]["tokens_seen"]
        nll = [record["metrics"]["end"]["ood"]["nll"]["value"] for record in (found, alone)]
        assert nll[0] == pytest.approx(nll[1], rel=1e-5)
        assert losses(shared) == pytest.approx(losses(folder), rel=1e-5)
        assert {path.name for path in shared.iterdir()} - {".lock"} == {path.name for path in folder.iterdir()}


def losses(folder):
    return [float(line.split(",")[1]) for line in (folder / "losses.csv").read_text().splitlines()[1:]]


@pytest.fixture
def launched(monkeypatch):
    """launched(rank, *arguments): exit code, the command line that was done, and what was said to the others."""

    def call(rank, *arguments):
        said, argv = [], []
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setattr(distributed, "join", lambda: None)
        monkeypatch.setattr(distributed, "rank", lambda: rank)
        monkeypatch.setattr(distributed, "launched", lambda: 2)
        monkeypatch.setattr(distributed, "say", said.append)
        monkeypatch.setattr(follower, "follow", lambda: 7)
        monkeypatch.setattr(command, "cli", lambda: argv.extend(sys.argv) or 0)
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
        return command.together(), argv, said

    return call


def test_runs_are_done_one_after_the_other_and_the_others_are_sent_home(launched, capsys):
    assert launched(0, "arm=full") == (0, ["run.py", "arm=full", "launcher=serial"], [None])
    assert launched(0, "launcher=serial") == (0, ["run.py", "launcher=serial"], [None])
    assert launched(1, "arm=full") == (7, [], [])
    assert capsys.readouterr().err == ""
    assert launched(0, "launcher=local") == (2, [], [None])
    assert capsys.readouterr().err == (
        "error: launcher=local: torchrun's processes share every run; use launcher=serial\n"
    )


def test_one_process_is_no_company(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(command, "cli", lambda: 5)
    assert command.together() == 5
