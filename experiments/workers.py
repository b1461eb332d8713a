"""The processes that runs are made in: they end with the sweep that started them, and keep what a run costs small."""

import gc
import multiprocessing
import os
import threading
import time
from functools import cache
from typing import Any

SWEEP_PID = "EXPERIMENTS_SWEEP_PID"  # tells a worker whose child it is


def outcome(run_id: str, error: str | None, *, mistake: bool = False, certain: bool = False) -> dict[str, Any]:
    """What became of a run, for the sweep: plain values, since they cross processes.

    `error` is None if the run is done, else one line; `mistake`: it is the user's to mend; `certain`: it
    would fail again.
    """
    return {"run_id": run_id, "error": error, "mistake": mistake, "certain": certain}


def own_workers() -> None:
    """Say to the workers that will be started that this process is their sweep."""
    os.environ[SWEEP_PID] = str(os.getpid())


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
