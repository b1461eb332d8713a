"""Runs as jobs of a cluster: what became of a job becomes an outcome, a note in the store, or another try."""

import sys
from pathlib import Path

import pytest

from curate.cluster import Ended, cluster_config
from experiments import cluster, run, store, workers
from experiments.config import plain, run_id
from tests.experiments import fakes


@pytest.fixture
def settings(composed):
    return cluster_config(plain(composed("launcher=slurm"))["cluster"])


@pytest.fixture
def launched(configured, settings, monkeypatch, tmp_path):
    """launched(n, *rounds): ids and outcomes of n runs, each round of jobs ending as told, and what each was given."""

    def launch(n, *rounds):
        configs = {run_id(one): one for one in (configured(f"seed.pair={pair}") for pair in range(n))}
        given, left = [], list(rounds)

        def jobs(work, tasks, settings, folder, *, name, per_job, say):
            assert (work, name, per_job) == (run.execute, "quickstart", 4)
            assert folder == tmp_path / "cache" / "jobs"
            given.append([run_id(config) for config, *_ in tasks])
            return left.pop(0)

        monkeypatch.setattr(cluster, "run_jobs", jobs)
        outcomes = cluster.launch(configs, settings, run.execute, "quickstart", ["a_claim"], print)
        return list(configs), outcomes, given

    return launch


def test_what_jobs_return_are_the_outcomes(launched):
    ids, outcomes, _ = launched(2, [Ended({"error": None}), Ended({"error": "NaN", "mistake": False})])
    assert outcomes == {ids[0]: {"error": None}, ids[1]: {"error": "NaN", "mistake": False}}


def test_a_run_its_job_took_down_is_failed_and_those_behind_it_are_tried_again(launched, tmp_path):
    dead = "its job 7_0 ran out of memory"
    first = [Ended({"error": None}), Ended(reason=dead), *[Ended(reason=dead, begun=False, again=True)] * 2]
    ids, outcomes, given = launched(4, first, [Ended({"error": None})] * 2)
    assert given == [ids, ids[2:]]
    assert outcomes[ids[1]] == workers.outcome(ids[1], dead, certain=True)
    assert store.failure(tmp_path / ids[1])["error"] == dead
    assert [outcomes[i]["error"] for i in (ids[0], *ids[2:])] == [None] * 3


def test_what_nobody_is_to_try_again_is_failed_too(launched, tmp_path):
    cancelled = Ended(reason="its job was cancelled", begun=False)
    ids, outcomes, given = launched(1, [cancelled])
    assert len(given) == 1
    assert store.failure(tmp_path / ids[0])["error"] == outcomes[ids[0]]["error"] == "its job was cancelled"


def test_what_a_dead_job_had_finished_counts(launched, configured, tmp_path):
    done, failed = (configured(f"seed.pair={pair}") for pair in range(2))
    store.open_run(tmp_path / run_id(done), {})
    fakes.fake_run(done, tmp_path / run_id(done))
    store.fail(tmp_path / run_id(failed), run_id(failed), "ValueError: its own")
    ids, outcomes, _ = launched(2, [Ended(reason="its job died")] * 2)
    assert [outcomes[i]["error"] for i in ids] == [None, "ValueError: its own"]


def test_bases_are_built_before_what_stands_on_them_and_a_failure_is_said(configured, settings, monkeypatch):
    configs = [configured("arm=filtered", f"seed.pair={pair}") for pair in range(4)]
    said, built = [], []

    def jobs(work, tasks, settings, folder, *, name, per_job, say):
        built.append((name, [(build.__name__, config.seed.base) for build, config in tasks]))
        assert per_job == 1
        return [Ended("disk full"), *[Ended()] * (len(tasks) - 1)]

    monkeypatch.setattr(cluster, "run_jobs", jobs)
    cluster.prepare(configs, settings, said.append)
    assert built == [
        ("bases", [("build_base", base) for base in range(3)]),
        ("rewards", [("build_reward", base) for base in range(3)]),
    ]
    assert said == [f"{what}: disk full; the runs that need it try it themselves" for what in ("bases", "rewards")]


def test_a_mistake_in_the_settings_is_said_before_anything_is_done(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run.py", "arm=full", "launcher=slurm", "cluster.minutes=0"])
    assert run.cli() == 2
    assert "cluster.minutes=0: should be greater than or equal to 1" in capsys.readouterr().err
    assert not list(Path(tmp_path).iterdir())


def test_a_plan_for_a_cluster_needs_no_cluster(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", "")
    arguments = ["experiment=quickstart", "plan=only", "launcher=slurm", "cluster.jobs_at_once=7"]
    monkeypatch.setattr(sys, "argv", ["run.py", *arguments, f"store.root={tmp_path}"])
    assert run.cli() == 0
    assert "min on 7 processes" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["run.py", "arm=full", "launcher=slurm", f"store.root={tmp_path}"])
    assert run.cli() == 2
    assert "error: launcher=slurm: " in capsys.readouterr().err
