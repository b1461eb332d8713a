"""A sweep that is killed leaves nobody computing, a run that hangs is ended, and workers keep their memory."""

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from experiments import store, workers

ROOT = Path(__file__).resolve().parents[2]
SWEEP = """
import os, time
import joblib
from experiments import workers

def work(folder, i):
    workers.watch_parent()
    open(os.path.join(folder, f"{os.getpid()}"), "w").close()
    time.sleep(120)

workers.own_workers()
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
        pids = [int(path.name) for path in tmp_path.iterdir()]
        assert all(map(psutil.pid_exists, pids))
    finally:
        sweep.kill()
        sweep.wait()
    assert wait_for(lambda: not any(map(psutil.pid_exists, pids)))


def test_the_next_sweep_ends_workers_that_had_not_begun_to_watch(tmp_path):
    code = SWEEP.replace("FOLDER", repr(str(tmp_path))).replace("    workers.watch_parent()\n", "")
    sweep = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        assert wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
        pids = [int(path.name) for path in tmp_path.iterdir()]
        workers.end_orphans()
        time.sleep(0.5)
        assert all(map(psutil.pid_exists, pids))  # their sweep is alive
    finally:
        sweep.kill()
        sweep.wait()
    time.sleep(1.5)
    assert all(map(psutil.pid_exists, pids))
    workers.end_orphans()
    assert wait_for(lambda: not any(map(psutil.pid_exists, pids)))


def test_who_builds_a_base_model_watches_too(monkeypatch, composed, tmp_path):
    from experiments import prepare
    from experiments.config import validate

    watched = []
    monkeypatch.setattr(prepare.workers, "watch_parent", lambda: watched.append(True))
    monkeypatch.setattr(prepare, "build_base", lambda config, say: say("built"))
    config = validate(composed(f"store.root={tmp_path}"))
    heard = []
    with prepare.told([config], heard.append):
        assert prepare.build(config) is None
    assert watched == [True] and heard == ["built"]


def test_a_run_that_hangs_is_recorded_with_its_step_and_ended(monkeypatch, tmp_path, capfd):
    ended = []
    monkeypatch.setattr(workers, "TICK_S", 0.02)
    monkeypatch.setattr(workers.os, "_exit", ended.append)
    with workers.watched(tmp_path, "abc", minutes=0.3 / 60) as at_step:
        for step in range(1, 13):  # longer than a hang, but it moves
            at_step(step)
            time.sleep(0.05)
        assert not ended and store.failure(tmp_path) is None
        assert wait_for(lambda: ended, 10)
    failed = store.failure(tmp_path)
    assert set(ended) == {1} and failed["step"] == 12 and failed["run_id"] == "abc"
    assert "after step 12" in failed["error"] and "survival.hang_minutes" in failed["error"]
    assert "hangs" in capfd.readouterr().err


def test_a_run_that_ends_is_no_longer_watched(monkeypatch, tmp_path):
    monkeypatch.setattr(workers, "TICK_S", 0.02)
    monkeypatch.setattr(workers.os, "_exit", lambda code: pytest.fail("ended"))
    with workers.watched(tmp_path, "abc", minutes=0.1 / 60) as at_step:
        at_step(1)
    time.sleep(0.5)
    assert store.failure(tmp_path) is None


PAGES_ASKED_FOR = """
import resource
import torch
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for size in range(1, 33):
    torch.ones(size * 100_000)  # each is larger than what glibc would keep, having met those before it
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

STARTED = f"print(subprocess.check_output([sys.executable, '-c', {PAGES_ASKED_FOR!r}], text=True))"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told how to keep memory")
def test_processes_that_start_after_run_keep_what_tensors_gave_back():
    def asked(first):
        command = [sys.executable, "-c", f"import os, subprocess, sys\n{first}\n" + STARTED]
        environment = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
        out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return int(out.stdout)

    assert 3 * asked("import experiments.run") < asked("")
