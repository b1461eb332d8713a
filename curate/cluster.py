"""Work as jobs of a SLURM cluster, several tasks a job, through submitit (extra `cluster`).

A job does its tasks one after the other. Told by SLURM that its time is up, or that it has to make room, it goes back
into the queue and goes on with the task in hand. One that ends without a result (cancelled, out of memory, a node
lost) takes no other with it: its tasks come back with the reason. All nodes see the folder that the jobs are kept in.
"""

import io
import os
import pickle
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from curate.config import explain
from curate.errors import UserError

_POLL_S = 5.0  # between two looks at the queue
_GRACE_S = 20.0  # that a shared file system may take to show the result of a job that has ended
_ARRAY = 1000  # jobs in one array: SLURM's own default bound is 1001
_OVER = {  # states that a job does not leave again
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "GONE", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
    "REVOKED", "TIMEOUT",
}  # fmt: skip
_TOLD = {
    "CANCELLED": "its job {id} was cancelled",
    "GONE": "its job {id} is gone from the queue and left no result",
    "NODE_FAIL": "the node of its job {id} failed",
    "OUT_OF_MEMORY": "its job {id} ran out of memory; raise cluster.memory_gb",
    "TIMEOUT": "its job {id} ran into its time limit; raise cluster.minutes",
}


class ClusterConfig(BaseModel):
    """What a job asks SLURM for: `conf/launcher/slurm.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    partition: str | None = None
    minutes: int = Field(ge=1)
    runs_per_job: int = Field(ge=1)
    jobs_at_once: int = Field(ge=1)
    cpus: int = Field(ge=1)
    gpus: int = Field(ge=0)
    memory_gb: float = Field(gt=0)
    requeues: int = Field(ge=0)
    signal_s: int = Field(ge=1)
    setup: list[str] = []
    sbatch: dict[str, str | int | float | bool] = {}


@dataclass(frozen=True)
class Ended:
    """What became of a task: the `value` that `work` returned, or the `reason` why there is none.

    With a reason: `begun` says whether the job came as far as this task, `again` whether another job may try it.
    """

    value: Any = None
    reason: str | None = None
    begun: bool = True
    again: bool = False


class _OutOfRequeues(BaseException):
    """Raised in a job by the signal that its time is up; no handler of a run's own errors is to take it for one."""


class Chunk:
    """The tasks of one job. Pickled with what it has done so far when its job goes back into the queue."""

    def __init__(self, work: Callable[..., Any], tasks: Sequence[tuple], note: Path, requeues: int):
        self.work, self.tasks, self.note, self.requeues = work, list(tasks), note, requeues
        self.values: list[Any] = []

    def __call__(self) -> tuple[list[Any], str | None]:
        """The values of the tasks that were done, and why the next one was not."""
        try:
            while len(self.values) < len(self.tasks):
                self.note.write_text(str(len(self.values)))  # what is under way, should the process die
                self.values.append(self.work(*self.tasks[len(self.values)]))
        except _OutOfRequeues:
            return self.values, "its job's time was up too often; raise cluster.minutes or cluster.requeues"
        return self.values, None

    def checkpoint(self) -> Any:
        """What submitit calls when SLURM signals: what the job does when it is started again."""
        self.requeues -= 1
        if self.requeues < 0:
            raise _OutOfRequeues
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def cluster_config(values: Mapping[str, Any] | None) -> ClusterConfig | None:
    """The checked settings, None for work that stays on this machine; raises UserError for the first mistake."""
    if values is None:
        return None
    try:
        return ClusterConfig.model_validate(values)
    except ValidationError as error:
        raise UserError(explain(error, "cluster")) from None


def check_cluster() -> None:
    """Raise UserError unless jobs can be submitted from here."""
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise UserError("launcher=slurm: submitit is not installed; pip install -e '.[cluster]'") from None
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise UserError("launcher=slurm: there is no sbatch here; run this where jobs are submitted")


def run_jobs(
    work: Callable[..., Any],
    tasks: Sequence[tuple],
    settings: ClusterConfig,
    folder: Path,
    *,
    name: str,
    per_job: int,
    say: Callable[[str], None],
    progress: Callable[[int, int], None] | None = None,
) -> list[Ended]:
    """Do `work(*task)` for every task in jobs of `per_job` tasks; returns what became of each, in their order.

    Args:
        work: a function of a module, found by its name on the nodes too.
        folder: where jobs and their logs are kept, on a file system that the nodes share. Removed at the end if all
            jobs left a result.
        name: of the jobs in the queue.
        progress: called with (jobs over, all jobs).

    Raises UserError if sbatch takes no job. Interrupted, it cancels the jobs that are not over.
    """
    check_cluster()
    folder = folder.resolve() / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    parts = split(tasks, per_job)
    chunks = [Chunk(work, part, folder / f"{at}.at", settings.requeues) for at, part in enumerate(parts)]
    ended: list[list[Ended]] = []
    for wave in split(chunks, _ARRAY):
        jobs = _submit(wave, settings, folder, name)
        what = f"{len(jobs)} job{'s' * (len(jobs) > 1)} ({jobs[0].job_id.split('_')[0]})"
        say(f"{name}: {what} for {sum(len(one.tasks) for one in wave)} tasks; logs in {folder}")
        try:
            ended += _gather(jobs, wave, progress or _silent, len(ended), len(chunks))
        except BaseException:
            subprocess.run(["scancel", *{job.job_id.split("_")[0] for job in jobs}], capture_output=True, check=False)
            say(f"{name}: {what} cancelled where not over")
            raise
    if not any(one.reason for part in ended for one in part):
        shutil.rmtree(folder, ignore_errors=True)
    return [one for part in ended for one in part]


def split(things: Sequence[Any], size: int) -> list[list[Any]]:
    """The things in order, `size` to a part; the last part may be smaller."""
    return [list(things[start : start + size]) for start in range(0, len(things), size)]


def _submit(chunks: Sequence[Chunk], settings: ClusterConfig, folder: Path, name: str) -> list[Any]:
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    # submitit counts requeues for time alone and ends a run by an error; ours are counted by the chunk
    executor = SlurmExecutor(folder, max_num_timeout=settings.requeues + 1)
    threads = [f"export {key}_NUM_THREADS={settings.cpus}" for key in ("OMP", "MKL", "OPENBLAS")]
    asked: dict[str, Any] = {
        "job_name": name,
        "time": settings.minutes,
        "cpus_per_task": settings.cpus,
        "mem": f"{max(1, round(settings.memory_gb * 1024))}MB",
        "array_parallelism": settings.jobs_at_once,
        "signal_delay_s": settings.signal_s,
        "setup": [*threads, *settings.setup],
        "additional_parameters": {"requeue": True, **settings.sbatch},
    }
    if settings.partition:
        asked["partition"] = settings.partition
    if settings.gpus:
        asked["gpus_per_node"] = settings.gpus
    executor.update_parameters(**asked)
    try:
        with redirect_stderr(io.StringIO()), executor.batch():  # sbatch's complaint is said once, below
            jobs = [executor.submit(chunk) for chunk in chunks]
    except (FailedJobError, FailedSubmissionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"launcher=slurm: sbatch took no job ({reason}); mend cluster.*") from None
    return jobs


def _silent(done: int, total: int) -> None:
    pass


def _gather(
    jobs: Sequence[Any], chunks: Sequence[Chunk], progress: Callable[[int, int], None], before: int, total: int
) -> list[list[Ended]]:
    """Wait for all jobs; what became of the tasks of each. `progress` gets how many of `total` jobs are over."""
    found: dict[int, list[Ended]] = {}
    since: dict[int, float] = {}  # when a job was first seen to be over without a result
    while True:
        states = queue()
        for at, (job, chunk) in enumerate(zip(jobs, chunks, strict=True)):
            if at in found:
                continue
            if (result := _result(job)) is not None:
                found[at] = _of_result(result, chunk)
            elif states is not None:
                state = states.get(job.job_id, "GONE")
                if state not in _OVER:
                    since.pop(at, None)
                elif time.monotonic() - since.setdefault(at, time.monotonic()) > _GRACE_S:
                    found[at] = _of_death(_why(job, state), state, chunk)
        progress(before + len(found), total)
        if len(found) == len(jobs):
            return [found[at] for at in range(len(jobs))]
        time.sleep(_POLL_S)


def queue() -> dict[str, str] | None:
    """The states of this user's jobs by id, as the queue has them; None if it does not answer."""
    command = ["squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i|%T"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    if said.returncode:
        return None
    return dict(line.strip().split("|", 1) for line in said.stdout.splitlines() if "|" in line)


def _result(job: Any) -> tuple[str, Any] | None:
    """("success", what the chunk returned) or ("error", its traceback), once it is there."""
    path = job.paths.result_pickle
    try:
        os.listdir(path.parent)  # so that a network file system looks again
        return pickle.loads(path.read_bytes())
    except (OSError, EOFError):
        return None


def _of_result(result: tuple[str, Any], chunk: Chunk) -> list[Ended]:
    kind, said = result
    if kind != "success":
        return _of_death(" ".join(str(said).strip().splitlines()[-1:]) or "its job failed", "FAILED", chunk)
    values, reason = said
    done = [Ended(value) for value in values]
    left = len(chunk.tasks) - len(done)
    return done + [Ended(reason=reason, begun=at == 0, again=at > 0) for at in range(left)]


def _of_death(reason: str, state: str, chunk: Chunk) -> list[Ended]:
    """Tasks as far as the note says were begun; the others may be tried again, unless somebody wanted them to end."""
    try:
        last = int(chunk.note.read_text())
    except (OSError, ValueError):
        last = -1
    again = last >= 0 and state != "CANCELLED"
    return [Ended(reason=reason, begun=at <= last, again=again and at > last) for at in range(len(chunk.tasks))]


def _why(job: Any, state: str) -> str:
    """One line: how the job ended, and where its log is."""
    show = subprocess.run(["scontrol", "show", "job", "-o", job.job_id], capture_output=True, text=True, check=False)
    told = _TOLD.get(state, "its job {id} ended as " + state).format(id=job.job_id)
    code = re.search(r" ExitCode=(\d+):(\d+)", show.stdout)
    killed = code is not None and (int(code[2]) == 9 or int(code[1]) in (9, 137))
    if state == "FAILED" and killed:
        told += ", killed (most likely for its memory; raise cluster.memory_gb)"
    elif state == "FAILED" and code is not None:
        told += f" with exit code {code[1]}"
    return f"{told}; see {job.paths.stderr}"
