"""Runs as jobs of a SLURM cluster: what `launcher=slurm` does in place of Hydra's launcher.

Base models and reward models are built in jobs too, one each, before the runs: a login node is no place to train on. A
run that its job took down with it is recorded as failed, with the reason; the runs behind it in that job are submitted
again. A sweep that is killed leaves its jobs at work: the same command takes up what they finish.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from curate.cluster import ClusterConfig, Ended, run_jobs
from experiments import store, workers
from experiments.config import Config


def launch(
    configs: Mapping[str, Config],
    settings: ClusterConfig,
    work: Callable[..., dict[str, Any]],
    experiment: str | None,
    claims: Sequence[str],
    say: Callable[[str], None],
) -> dict[str, dict[str, Any]]:
    """Do the runs in jobs of `settings.runs_per_job`; returns the outcomes of `work`, experiments.run.execute.

    `configs` are by run id. Raises UserError if sbatch takes no job; Ctrl-C cancels the jobs that are not over.
    """
    outcomes: dict[str, dict[str, Any]] = {}
    left = list(configs)
    while left:
        root = Path(configs[left[0]].store.root)
        tasks = [(configs[run_id], experiment, tuple(claims)) for run_id in left]
        ended = run_jobs(
            work, tasks, settings, _folder(root), name=experiment or "runs", per_job=settings.runs_per_job, say=say
        )
        again = []
        for run_id, end in zip(left, ended, strict=True):
            outcome = _outcome(root, run_id, end)
            if outcome is None:
                again.append(run_id)
            else:
                outcomes[run_id] = outcome
        left = again  # fewer each time: a job that began none of its runs is not tried again
    return outcomes


def _outcome(root: Path, run_id: str, end: Ended) -> dict[str, Any] | None:
    """As `work` would have returned it; None for a run that another job is to do."""
    if end.reason is None:
        return end.value
    folder = store.run_folder(root, run_id)
    if store.read(folder) is not None:
        return workers.outcome(run_id, None)
    if end.again:
        return None
    failed = store.failure(folder) if end.begun else None  # what it said itself before its job ended
    if failed is None:
        store.fail(folder, run_id, end.reason)
    # not tried again by the sweep: the cluster has requeued what it could
    return workers.outcome(run_id, failed["error"] if failed else end.reason, certain=True)


def prepare(configs: Sequence[Config], settings: ClusterConfig, say: Callable[[str], None]) -> None:
    """Build what `configs` share in jobs; what cannot be built is said, and left to the runs that need it."""
    from experiments.prepare import stages

    for at, what in enumerate(("bases", "rewards")):
        stage = stages(configs)[at]  # looked at anew: a reward model is named after what its base became
        if not stage:
            continue
        folder = _folder(Path(configs[0].store.root))
        for end in run_jobs(_build, stage, settings, folder, name=what, per_job=1, say=say):
            if error := end.reason or end.value:
                say(f"{what}: {error}; the runs that need it try it themselves")


def _build(build: Callable[..., Path], config: Config) -> str | None:
    """What a job does: build one model; returns the error as one line, if there is one."""
    from experiments.prepare import attempt

    return attempt(build, config, partial(print, flush=True))


def _folder(root: Path) -> Path:
    return root / "cache" / "jobs"
