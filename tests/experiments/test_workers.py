"""A sweep that is killed leaves nobody computing."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
SWEEP = """
import os, time
import joblib
from experiments import workers

def work(folder, i):
    workers.watch_parent()
    open(os.path.join(folder, f"{os.getpid()}"), "w").close()
    time.sleep(120)

os.environ[workers.SWEEP_PID] = str(os.getpid())
joblib.Parallel(n_jobs=2)(joblib.delayed(work)(FOLDER, i) for i in range(2))
"""


def wait_for(condition, seconds=60):
    """Whether `condition` came to hold in time."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    return condition()


def test_workers_end_with_a_sweep_that_is_killed(tmp_path):
    code = SWEEP.replace("FOLDER", repr(str(tmp_path)))
    sweep = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        assert wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
        workers = [int(path.name) for path in tmp_path.iterdir()]
        assert all(map(psutil.pid_exists, workers))
    finally:
        sweep.kill()
        sweep.wait()
    assert wait_for(lambda: not any(map(psutil.pid_exists, workers)))


def test_the_prepare_stage_watches_too(monkeypatch, tmp_path):
    from experiments import prepare

    watched = []
    monkeypatch.setattr(prepare.workers, "watch_parent", lambda: watched.append(True))
    prepare._build_quietly(lambda config, say: say("built"), None, tmp_path / "progress")
    assert watched == [True] and (tmp_path / "progress").read_text() == "built"
