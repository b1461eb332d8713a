"""What becomes of tasks in jobs of a cluster, told by a queue that does as it is told."""

import pickle
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from curate import UserError, cluster
from curate.cluster import Chunk, ClusterConfig, Ended, cluster_config, run_jobs

SETTINGS: dict[str, Any] = {
    "partition": None, "minutes": 60, "runs_per_job": 4, "jobs_at_once": 8, "cpus": 1, "gpus": 0, "memory_gb": 4.0,
    "requeues": 1, "signal_s": 90, "setup": [], "sbatch": {},
}  # fmt: skip


def double(value: int) -> int:
    return 2 * value


class Queue:
    """Stands in for sbatch and squeue. `fates` by job: None does the work, else (tasks begun, state it ends in)."""

    def __init__(self, *fates: tuple[int, str] | None):
        self.fates, self.states, self.waves, self.cancelled = list(fates), {}, [], []

    def submit(self, chunks: Any, settings: ClusterConfig, folder: Path, name: str) -> list[Any]:
        jobs = []
        for at, chunk in enumerate(chunks):
            job_id = f"{len(self.waves) + 1}_{at}"
            paths = types.SimpleNamespace(result_pickle=folder / f"{job_id}.pkl", stderr=folder / f"{job_id}.err")
            jobs.append(types.SimpleNamespace(job_id=job_id, paths=paths))
            fate = self.fates.pop(0) if self.fates else None
            if fate is None:
                paths.result_pickle.write_bytes(pickle.dumps(("success", chunk())))
            else:
                begun, state = fate
                if begun:
                    chunk.note.write_text(str(begun - 1))
                if state == "ERROR":
                    paths.result_pickle.write_bytes(pickle.dumps(("error", "Traceback ...\nImportError: no torch\n")))
                elif state != "GONE":
                    self.states[job_id] = state
        self.waves.append(len(jobs))
        return jobs


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(*fates: tuple[int, str] | None) -> Queue:
        made = Queue(*fates)
        monkeypatch.setattr(cluster, "check_cluster", lambda: None)
        monkeypatch.setattr(cluster, "_submit", made.submit)
        monkeypatch.setattr(cluster, "queue", lambda: made.states)
        monkeypatch.setattr(cluster, "_POLL_S", 0.01)
        monkeypatch.setattr(cluster, "_GRACE_S", 0.05)

        def run(command: list[str], **_: Any) -> Any:
            made.cancelled += command[1:] if command[0] == "scancel" else []
            return types.SimpleNamespace(stdout=" ExitCode=0:9 " if command[0] == "scontrol" else "", returncode=0)

        monkeypatch.setattr(subprocess, "run", run)
        return made

    return make


def jobs_of(tmp_path: Path, n: int, per_job: int, **options: Any) -> list[Ended]:
    settings = ClusterConfig(**SETTINGS)
    tasks = [(at,) for at in range(n)]
    return run_jobs(double, tasks, settings, tmp_path, name="t", per_job=per_job, say=lambda _: None, **options)


def test_tasks_come_back_in_their_order_and_nothing_is_left(tmp_path: Path, queue: Any) -> None:
    made = queue()
    over: list[tuple[int, int]] = []
    ended = jobs_of(tmp_path, 7, 3, progress=lambda done, total: over.append((done, total)))
    assert [one.value for one in ended] == [0, 2, 4, 6, 8, 10, 12]
    assert made.waves == [3]
    assert over == [(3, 3)]
    assert not list(tmp_path.iterdir())


def test_more_jobs_than_an_array_holds_are_several_arrays(
    tmp_path: Path, queue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = queue()
    monkeypatch.setattr(cluster, "_ARRAY", 2)
    over: list[int] = []
    ended = jobs_of(tmp_path, 5, 1, progress=lambda done, _: over.append(done))
    assert made.waves == [2, 2, 1]
    assert [one.value for one in ended] == [0, 2, 4, 6, 8]
    assert over == [2, 4, 5]


@pytest.mark.parametrize(
    ("state", "said", "again"),
    [
        ("CANCELLED", "its job 1_1 was cancelled", False),
        ("OUT_OF_MEMORY", "its job 1_1 ran out of memory; raise cluster.memory_gb", True),
        ("TIMEOUT", "its job 1_1 ran into its time limit; raise cluster.minutes", True),
        ("NODE_FAIL", "the node of its job 1_1 failed", True),
        ("FAILED", "its job 1_1 ended as FAILED, killed (most likely for its memory; raise cluster.memory_gb)", True),
        ("GONE", "its job 1_1 is gone from the queue and left no result", True),
    ],
)
def test_a_dead_job_takes_its_own_tasks_and_no_others(
    tmp_path: Path, queue: Any, state: str, said: str, again: bool
) -> None:
    queue(None, (2, state), None)
    ended = jobs_of(tmp_path, 9, 3)
    assert [one.value for one in ended] == [0, 2, 4, None, None, None, 12, 14, 16]
    dead = ended[3:6]
    assert all(one.reason and one.reason.startswith(f"{said}; see ") for one in dead)
    assert [one.begun for one in dead] == [True, True, False]
    assert [one.again for one in dead] == [False, False, again]
    assert list(tmp_path.iterdir())  # the logs are kept


def test_a_job_that_began_nothing_is_not_tried_again(tmp_path: Path, queue: Any) -> None:
    queue((0, "FAILED"))
    assert [(one.begun, one.again) for one in jobs_of(tmp_path, 2, 2)] == [(False, False)] * 2


def test_an_error_outside_the_work_is_a_reason(tmp_path: Path, queue: Any) -> None:
    queue((0, "ERROR"))
    assert [one.reason for one in jobs_of(tmp_path, 1, 1)] == ["ImportError: no torch"]


def test_a_queue_that_does_not_answer_is_no_death(tmp_path: Path, queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = queue((1, "RUNNING"))
    answers = iter([None] * 20)

    def late() -> dict[str, str] | None:
        answer = next(answers, made.states)
        if answer is not None:
            made.states["1_0"] = "COMPLETED"
            (result,) = tmp_path.glob("*/")
            (result / "1_0.pkl").write_bytes(pickle.dumps(("success", ([0], None))))
        return answer

    monkeypatch.setattr(cluster, "queue", late)
    assert [one.value for one in jobs_of(tmp_path, 1, 1)] == [0]


def test_interrupted_it_cancels_what_it_submitted(tmp_path: Path, queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = queue((1, "RUNNING"), (1, "RUNNING"))

    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cluster, "queue", stop)
    with pytest.raises(KeyboardInterrupt):
        jobs_of(tmp_path, 2, 1)
    assert made.cancelled == ["1"]


def test_a_requeued_chunk_goes_on_with_the_task_in_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helpers = types.SimpleNamespace(DelayedSubmission=lambda chunk: pickle.loads(pickle.dumps(chunk)))
    monkeypatch.setitem(sys.modules, "submitit", types.SimpleNamespace(helpers=helpers))
    monkeypatch.setitem(sys.modules, "submitit.helpers", helpers)
    chunk = Chunk(double, [(1,), (2,), (3,)], tmp_path / "note", requeues=1)
    chunk.values = [2]
    later = chunk.checkpoint()
    assert (later.values, later.requeues) == ([2], 0)
    later.tasks[0] = ("would be doubled as text",)  # and is not: it is done
    assert later() == ([2, 4, 6], None)
    assert (tmp_path / "note").read_text() == "2"


def test_a_chunk_out_of_requeues_ends_with_what_it_has(tmp_path: Path) -> None:
    def work(value: int) -> int:
        if value == 2:
            signal.raise_signal(signal.SIGUSR2)
        return value

    chunk = Chunk(work, [(1,), (2,), (3,)], tmp_path / "note", requeues=0)
    before = signal.signal(signal.SIGUSR2, lambda *_: chunk.checkpoint())
    try:
        values, reason = chunk()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert values == [1]
    ended = cluster._of_result(("success", (values, reason)), chunk)
    assert [(one.value, one.begun, one.again) for one in ended] == [
        (1, True, False),
        (None, True, False),
        (None, False, True),
    ]
    assert "raise cluster.minutes or cluster.requeues" in str(ended[1].reason)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("minutes", 0, "cluster.minutes=0: should be greater than or equal to 1"),
        ("memory_gb", -1, "cluster.memory_gb=-1: should be greater than 0"),
        ("runs_per_job", "many", "cluster.runs_per_job=many: should be a valid integer"),
        ("nodes", 2, "cluster.nodes=2: there is no such key"),
    ],
)
def test_a_mistake_in_the_settings_is_one_line(key: str, value: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        cluster_config({**SETTINGS, key: value})


def test_without_slurm_the_mistake_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", types.ModuleType("submitit"))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="launcher=slurm: there is no sbatch here"):
        cluster.check_cluster()
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"pip install -e '.\[cluster\]'"):
        cluster.check_cluster()
