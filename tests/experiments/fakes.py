"""Stands in for the long parts of a run (pools, models, figures), so that what is around them is tested in seconds.

`python -m tests.experiments.fakes <overrides>` is the command line with them. FAKE_SECONDS: how long a run takes;
FAKE_DEATH=ARM:PAIR: kill the process of that run; FAKE_HUNGER=ARM:PAIR: that run asks for more memory than there is;
FAKE_LOG: a file that gets a line for every run that is begun; FAKE_AHEAD: what runs share is built in earnest.
"""

import os
import resource
import signal
import sys
import time
import types
from pathlib import Path

if os.environ.get("FAKE_PROCESS"):  # a process of its own need not spend seconds on importing what is replaced
    sys.modules |= {name: types.ModuleType(name) for name in ("experiments.pipeline", "experiments.report")}

from experiments import cluster, pipeline, prepare, report, run, store
from experiments.config import run_id


def fake_run(config, folder: Path):
    if log := os.environ.get("FAKE_LOG"):
        with open(log, "a") as file:
            file.write(f"{folder.name}\n")
    time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
    if os.environ.get("FAKE_DEATH") == f"{config.arm}:{config.seed.pair}":
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ.get("FAKE_HUNGER") == f"{config.arm}:{config.seed.pair}":
        resource.setrlimit(resource.RLIMIT_AS, (2**34, 2**34))
        bytearray(2**35)
    value = 0.5 + 0.01 * config.seed.train
    with store.MetricsLog(folder) as log:
        log.write(tokens=1000, step=48, epoch=0.4, suite="ood", metric="em", value=value)
    metrics = {"ood": {"em": {"value": value, "n": 900}}}
    record = {
        "run_id": run_id(config),
        "arm": config.arm,
        "metrics": {"best_val": metrics, "end": metrics},
        "cost": {"train_s": time.perf_counter()},
        "environment": {"pid": os.getpid(), "device": "cpu"},
    }
    store.finish(folder, record)
    return record


def fake_build(
    name, title, cells, records, claims, out: Path, command, config_yaml, *, evaluation, failures, ood, root, paper
):
    store.write_atomic(
        out / "runs.csv", "\n".join(f"{cell.run_id},{cell.arm}" for cell in cells if cell.run_id in records)
    )
    store.write_atomic(out / "command", command)
    store.write_atomic(out / "config.yaml", config_yaml)
    store.write_atomic(out / "index.html", "")
    store.write_atomic(out / "claims.json", "[]")
    return []


def install(put=setattr) -> None:
    """Put the stand-ins in their places, with `put(module, name, value)`."""
    put(pipeline, "run", fake_run)
    if not os.environ.get("FAKE_AHEAD"):
        put(prepare, "ahead", lambda configs: [])
    put(cluster, "prepare", lambda configs, settings, say: say(f"preparing {len(configs)}"))
    put(report, "build", fake_build)
    put(report, "arm_table", lambda *_, **__: "the arms")
    put(report, "claim_table", lambda *_, **__: "the claims")


_execute = run.execute


def execute(*arguments):
    """What a worker calls in place of `experiments.run.execute`."""
    install()
    return _execute(*arguments)


if __name__ == "__main__":
    from tests.experiments import fakes  # under its real name, for workers to find

    fakes.install()
    run.execute = fakes.execute
    sys.exit(run.cli())
