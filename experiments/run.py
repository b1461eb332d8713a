"""Experiments, sweeps and single runs, from the command line.

    python -m experiments.run experiment=quickstart                                the default story, in minutes
    python -m experiments.run experiment=quickstart plan=only                      what it would run, and how long
    python -m experiments.run -m experiment=quickstart noise.rate=0,0.2,0.4        any key, Hydra's sweep syntax
    python -m experiments.run arm=filtered seed.pair=0                             one run
    python -m experiments.run experiment=alpaca_smoke data.path=FOLDER/alpaca_data.json
    torchrun --nproc-per-node 2 -m experiments.run ...                             each run on two GPUs

What is finished is never run again: after an interruption, or with more axes, the same command goes on.
Exit codes: 0 all is there, 1 runs failed or are missing, 2 a mistake in what was asked for, 130 interrupted.
"""

# ruff: noqa: E402
import os

# One thread a process: runs, not operations, are what is done side by side. Libraries read this when they are imported.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
# glibc returns what tensors gave back to the system and asks for it again at the next step, page by page. Kept, and in
# pages of 2 MiB, evaluation takes a quarter less time and a step a twelfth. Read by a process when it starts, so by
# those that the runs are done in
MALLOC = {"hugetlb": 1, "mmap_threshold": 32 << 20, "trim_threshold": 256 << 20}
os.environ.setdefault("GLIBC_TUNABLES", ":".join(f"glibc.malloc.{key}={value}" for key, value in MALLOC.items()))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # a bar for every model loaded

import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, OverrideParseException
from hydra_plugins.paired_sweeper import PREPARE, PairedSweeper, interrupted
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

import curate
import train
from curate.errors import group_mistake
from experiments import UserError, store, tracking, workers
from experiments.config import Config, run_id, validate, validate_experiment

CONF = Path(__file__).resolve().parent.parent / "conf"
MISTAKES = (UserError, curate.UserError, train.UserError, HydraException, OmegaConfBaseException, OSError)

Plugins.instance().register(PairedSweeper)  # Hydra's own discovery misses packages installed in editable mode


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(cfg: DictConfig) -> dict[str, Any]:
    """One job = one run, or what the sweep asks for ahead of the runs: the models that they share."""
    if cfg.plan == PREPARE:
        from experiments import prepare

        config = validate(cfg)
        return workers.outcome(run_id(config), prepare.build(config))
    experiment = validate_experiment(cfg)
    return execute(validate(cfg), experiment.name, experiment.claims)


def execute(config: Config, experiment: str | None = None, claim_names: Sequence[str] = ()) -> dict[str, Any]:
    """Do one run unless it is done; never raises for a run that fails.

    Returns its `workers.outcome`.
    """
    from experiments import claim_files, pipeline

    name = run_id(config)
    outcome = workers.outcome(name, None)
    folder = store.run_folder(config.store.root, name)
    workers.watch_parent()
    workers.settle()
    try:
        with store.lock(folder):  # another process may be at the same run: it is waited for, not repeated
            if store.read(folder) is None:
                store.open_run(folder, config.model_dump(mode="json"))
                quoted = claim_files.quoted_series(claim_files.load(claim_names))
                record = pipeline.run(config, folder)
                tracking.mirror(config, folder, record, experiment=experiment, quoted=quoted)
    except Exception as error:
        if interrupted(error):
            raise KeyboardInterrupt from None
        certain = getattr(error, "certain", False)  # by the kind of error, with its step where it has one
        outcome = workers.outcome(name, one_line(error), mistake=isinstance(error, MISTAKES), certain=certain)
        try:
            trace = None if outcome["mistake"] else traceback.format_exc()
            store.fail(folder, name, outcome["error"], getattr(error, "step", None), trace)
        except OSError:
            pass  # a full disk takes no notes either; the outcome still says why
    return outcome


def one_line(error: BaseException) -> str:
    """An error as one line; Hydra's several lines are condensed to key, value and mend."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror.lower()}"
    text = str(error)
    cause = error.__cause__
    if isinstance(error, HydraException) and isinstance(cause, OmegaConfBaseException):
        text = f"{text}\n{cause}".strip()
    if isinstance(error, OverrideParseException):
        text = f"{error.override}: {text.splitlines()[0]}; give key=value, with quotes around special characters"
    if missing := re.search(r"Could not (?:override|append to config\.?) '([^'\n]+)'", text):
        node = getattr(cause, "parent_node", None)
        keys = f"; use one of {', '.join(sorted(map(str, node)))}" if node else "; see --help"
        return f"{missing.group(1)}: no such key{keys}"
    if option := re.search(r"Could not find '([^']+)/([^'/]+)'", text):
        options = ", ".join(re.findall(r"^\t(\S+)$", text.partition("Available options")[2], re.MULTILINE))
        return f"{option.group(1)}={option.group(2)}: no such option; use one of {options}"
    text = " ".join(text.split())
    return text if isinstance(error, MISTAKES) else f"{type(error).__name__}: {text}"


def cli() -> int:
    """`main` with one line, and no traceback, for a mistake in what was asked for (HYDRA_FULL_ERROR=1 shows all)."""
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands errors over instead of printing them
    try:
        main()
    except MISTAKES as error:
        if full:
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2
    except ValueError as error:
        if full or (message := group_mistake(error, sys.argv[1:], CONF)) is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return 2
    finally:
        os.environ["HYDRA_FULL_ERROR"] = "1" if full else "0"
    return 0


def together() -> int:
    """`cli` in the first of torchrun's processes; the others take part in its trainings and in nothing else.

    Runs are done one after the other, by all processes together: another launcher is a mistake of the user's.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return cli()
    from train import distributed, follower

    distributed.join()
    if distributed.rank():
        return follower.follow()
    try:
        asked = [argument for argument in sys.argv if argument.startswith("launcher=")] or ["launcher=serial"]
        if asked != ["launcher=serial"]:
            print(f"error: {asked[-1]}: torchrun's processes share every run; use launcher=serial", file=sys.stderr)
            return 2
        sys.argv = [argument for argument in sys.argv if argument not in asked] + asked
        return cli()
    finally:
        follower.release()


if __name__ == "__main__":
    from experiments import run  # so that workers find `main` under its real name

    sys.exit(run.together())
