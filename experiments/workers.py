"""Worker processes end with the sweep that started them: one that is killed must not leave others computing."""

import multiprocessing
import os
import threading
import time
from functools import cache

SWEEP_PID = "EXPERIMENTS_SWEEP_PID"  # tells a worker whose child it is


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
