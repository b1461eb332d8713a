"""The processes that runs are made in: they end with the sweep that started them, and keep what a run costs small."""

import gc
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from experiments import store

TICK_S = 1.0  # how often it is looked whether a run still moves
SWEEP_PID = "EXPERIMENTS_SWEEP_PID"  # tells a worker whose child it is
WORKER = "popen_loky_posix"  # in the command of joblib's workers


def outcome(run_id: str, error: str | None, *, mistake: bool = False, certain: bool = False) -> dict[str, Any]:
    """What became of a run, for the sweep: plain values, since they cross processes.

    `error` is None if the run is done, else one line; `mistake`: it is the user's to mend; `certain`: it
    would fail again.
    """
    return {"run_id": run_id, "error": error, "mistake": mistake, "certain": certain}


def own_workers() -> None:
    """Say to the workers that will be started that this process is their sweep, and end those that have lost theirs."""
    end_orphans()
    os.environ[SWEEP_PID] = str(os.getpid())


def end_orphans() -> None:
    """End this user's workers whose sweep was killed while it handed them their first task.

    Such a worker waits for the rest of that task, and has no thread yet that looks after its sweep.
    """
    for process in psutil.process_iter(["cmdline"]):
        if WORKER not in " ".join(process.info["cmdline"] or []):
            continue
        with suppress(psutil.Error):  # it ended by itself, or is somebody else's
            sweep = process.environ().get(SWEEP_PID)
            if sweep and not psutil.pid_exists(int(sweep)):
                process.kill()


@cache
def watch_parent() -> None:
    """In a worker of a sweep on this machine, start a thread that ends the process once the sweep is gone."""
    if not multiprocessing.current_process().name.startswith("Loky"):
        return  # the sweep's own process, or a cluster's
    parent = os.environ.get(SWEEP_PID)

    def watch() -> None:
        while str(os.getppid()) == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@cache
def settle() -> None:
    """Take what is in memory now, modules above all, out of the garbage collector's sight.

    A Trainer collects garbage whenever it begins, and would look through all that was imported every time.
    """
    gc.collect()
    gc.freeze()


@contextmanager
def watched(folder: Path, run_id: str, minutes: float) -> Iterator[Callable[[int], None]]:
    """Inside, the value is called with every step that is done; a run that makes none for `minutes` is ended.

    It is recorded as failed with its last step, and its process with it: what hangs in a library cannot be interrupted.
    """
    done, calls, over = 0, 0, threading.Event()

    def at_step(step: int) -> None:
        nonlocal done, calls
        done, calls = step, calls + 1

    def watch() -> None:
        idle, seen = 0.0, -1
        while not over.wait(TICK_S):  # ticks, not a clock: a process that was stopped has not been idle
            idle, seen = idle + TICK_S if calls == seen else 0.0, calls
            if idle >= 60 * minutes:
                error = f"hangs: no step in {minutes:g} min (survival.hang_minutes) after step {done}"
                store.fail(folder, run_id, error, done)
                print(f"run {run_id} {error}", file=sys.stderr, flush=True)
                os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield at_step
    finally:
        over.set()
