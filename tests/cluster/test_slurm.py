"""A real sbatch: sweeps and shards as jobs; jobs cancelled, requeued, out of time, killed, interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cluster.engine import said

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).resolve().parents[2]
TWO_ARMS = ("experiment=quickstart", "arm=full,random", "experiment.pairs=3", "tracking=none")
SMALL = ("launcher=slurm", "cluster.memory_gb=1", "cluster.minutes=5")
ONE_JOB = (*TWO_ARMS, *SMALL, "cluster.runs_per_job=6")


def start(folder, *arguments, module="tests.experiments.fakes", **environment):
    """The command line in the background; with stand-ins for what is long, here and in its jobs."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "FAKE_PROCESS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell hands its background jobs an ignored Ctrl-C, and so would these tests when they are such a job
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def ended(process, seconds=300):
    """Exit code, stdout and stderr.

    A job that was requeued waits for three seconds and not for SLURM's two minutes; started again in the same second,
    its credential would be revoked.
    """
    deadline, seen = time.monotonic() + seconds, {}
    while process.poll() is None and time.monotonic() < deadline:
        for line in said("squeue", "--noheader", "--states=pending", "--format=%i %r").splitlines():
            waiting = line.split()[0]
            if line.endswith("BeginTime") and time.monotonic() - seen.setdefault(waiting, time.monotonic()) > 3:
                subprocess.run(["scontrol", "update", f"JobId={waiting}", "StartTime=now"], check=False)
                del seen[waiting]
        time.sleep(0.2)
    out, err = process.communicate(timeout=1)
    return process.returncode, out, err


def records(folder):
    """Run id -> the part of its record that does not depend on machine and time."""
    found = {path.parent.name: json.loads(path.read_text()) for path in Path(folder).glob("*/record.json")}
    return {
        name: {k: v for k, v in one.items() if k not in ("cost", "environment")} for name, one in sorted(found.items())
    }


def logs(folder):
    return "".join(path.read_text() for path in sorted(Path(folder).glob("cache/jobs/*/*_log.*")))


def wait_for(process, condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.1)


def job():
    """The id of the one job in the queue."""
    return said("squeue", "--noheader", "--states=running", "--format=%i").split()[0]


def test_a_sweep_as_an_array_of_jobs_is_the_sweep_of_one_process(slurm, tmp_path):
    arguments = ("experiment=quickstart", "arm=full,random", "experiment.pairs=2", "debug=tiny", "tracking=none")
    jobs = (*arguments, "launcher=slurm", "cluster.memory_gb=2", "cluster.runs_per_job=2", "store.root=jobs")
    code, out, err = ended(start(tmp_path, *jobs, module="experiments.run"), 500)
    assert code == 0, out + err
    assert "bases: 2 jobs" in out  # built in jobs too
    assert "quickstart: 2 jobs" in out
    assert ended(start(tmp_path, *arguments, "store.root=here", module="experiments.run"), 500)[0] == 0
    assert len(records(tmp_path / "jobs")) == 4
    assert records(tmp_path / "jobs") == records(tmp_path / "here")
    assert not list((tmp_path / "jobs/cache/jobs").iterdir())  # nothing is left where nothing failed


def test_a_cancelled_job_is_failed_runs_and_the_same_command_goes_on(slurm, tmp_path):
    arguments = (*TWO_ARMS, *SMALL, "cluster.runs_per_job=3")
    process = start(tmp_path, *arguments, FAKE_SECONDS="4")
    wait_for(process, lambda: len(records(tmp_path / "runs")) >= 1)
    cancelled = job()
    subprocess.run(["scancel", cancelled], check=True)
    code, out, err = ended(process)
    assert code == 1, out + err
    kept = records(tmp_path / "runs")
    assert 3 <= len(kept) < 6  # the other job was not touched
    assert f"{6 - len(kept)} of 6 runs missing" in err
    assert "was cancelled; see " in err
    assert "Traceback" not in err
    assert len(list((tmp_path / "runs").glob("*/failed.json"))) == 6 - len(kept)
    code, out, err = ended(start(tmp_path, *arguments))
    assert (code, err) == (0, "")
    assert f"{len(kept)} done, {6 - len(kept)} to do" in out


def test_a_requeued_job_goes_on_with_what_has_no_record(slurm, tmp_path):
    process = start(tmp_path, *ONE_JOB, FAKE_SECONDS="2")
    wait_for(process, lambda: len(records(tmp_path / "runs")) >= 2)
    kept = {path: path.read_bytes() for path in (tmp_path / "runs").glob("*/record.json")}
    subprocess.run(["scontrol", "requeue", job()], check=True)
    code, out, err = ended(process)
    assert (code, err) == (0, ""), out
    assert len(records(tmp_path / "runs")) == 6
    assert {path: path.read_bytes() for path in kept} == kept
    assert out.count("1 job (") == 1  # the same job, not another one


def test_a_job_that_has_to_make_room_puts_itself_back(slurm, tmp_path):
    process = start(tmp_path, *ONE_JOB, FAKE_SECONDS="2")
    wait_for(process, lambda: len(records(tmp_path / "runs")) >= 1)
    subprocess.run(["scancel", "--signal=USR2", job()], check=True)
    wait_for(process, lambda: "Requeued job" in logs(tmp_path / "runs"), 30)
    code, out, err = ended(process)
    assert (code, err) == (0, ""), out
    assert len(records(tmp_path / "runs")) == 6


def test_a_job_out_of_requeues_loses_the_run_in_hand_and_no_other(slurm, tmp_path):
    process = start(tmp_path, *ONE_JOB, "cluster.requeues=0", FAKE_SECONDS="2")
    wait_for(process, lambda: len(records(tmp_path / "runs")) >= 1)
    subprocess.run(["scancel", "--signal=USR2", job()], check=True)
    code, out, err = ended(process)
    assert code == 1, out
    assert "1 of 6 runs missing" in err
    assert "its job's time was up too often; raise cluster.minutes or cluster.requeues" in err
    assert len(records(tmp_path / "runs")) == 5


def test_a_time_limit_shorter_than_the_work_only_makes_it_longer(slurm, tmp_path):
    process = start(tmp_path, *ONE_JOB, "cluster.minutes=1", "cluster.signal_s=15", FAKE_SECONDS="10")
    wait_for(process, lambda: "Requeued job" in logs(tmp_path / "runs"), 200)
    code, out, err = ended(process, 400)
    assert (code, err) == (0, ""), out
    assert len(records(tmp_path / "runs")) == 6


def test_a_run_whose_process_is_killed_fails_alone(slurm, tmp_path):
    code, out, err = ended(start(tmp_path, *ONE_JOB, FAKE_DEATH="random:1"))
    assert code == 1, out + err
    assert "1 of 6 runs missing" in err
    assert "killed (most likely for its memory; raise cluster.memory_gb); see " in err
    assert len(records(tmp_path / "runs")) == 5


def test_ctrl_c_cancels_the_jobs_and_says_how_to_go_on(slurm, tmp_path):
    process = start(tmp_path, *ONE_JOB, FAKE_SECONDS="2")
    wait_for(process, lambda: len(records(tmp_path / "runs")) >= 1)
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process, 60)
    assert code == 130, out + err
    assert "cancelled where not over" in out
    assert "runs are done and kept; go on with" in out
    assert "Traceback" not in err
    deadline = time.monotonic() + 30
    while said("squeue", "--noheader"):
        assert time.monotonic() < deadline, "a job goes on"
        time.sleep(0.2)


def test_what_sbatch_refuses_is_one_line(slurm, tmp_path):
    code, _, err = ended(start(tmp_path, *TWO_ARMS, *SMALL, "cluster.partition=nowhere"))
    assert code == 2
    assert err.startswith("error: launcher=slurm: sbatch took no job (")
    assert "invalid partition" in err
    assert len(err.splitlines()) == 1


def test_shards_as_jobs_write_the_bytes_of_one_process(slurm, tmp_path, reward_model_folder):
    rows = [{"instruction": f"what is {n} ?", "output": " ".join(["rain"] * (n % 37 + 1))} for n in range(700)]
    (tmp_path / "in.json").write_text(json.dumps(rows))
    scoring = ("data.path=in.json", "scorer=reward_model", f"scorer.model={reward_model_folder}")
    arguments = (*scoring, "selection=top_k", "selection.k=200")
    one = ("out.path=one.json", "out.rejected=rest_one.json", "cache=one")
    several = ("out.path=jobs.json", "out.rejected=rest_jobs.json", "cache=jobs", "shards=3", *SMALL)
    environment = {"module": "curate", "OMP_NUM_THREADS": "1"}
    code, _, err = ended(start(tmp_path, *arguments, *one, **environment))
    assert code == 0, err
    code, _, err = ended(start(tmp_path, *arguments, *several, **environment))
    assert code == 0, err
    assert "scoring 700 rows in 3 shards" in err
    assert (tmp_path / "jobs.json").read_bytes() == (tmp_path / "one.json").read_bytes()
    assert (tmp_path / "rest_jobs.json").read_bytes() == (tmp_path / "rest_one.json").read_bytes()
    assert not list((tmp_path / "jobs/jobs").iterdir())
