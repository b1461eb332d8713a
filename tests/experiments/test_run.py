"""The command line: what is done stays done, what fails is said, and mistakes are one line."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from experiments import UserError, pipeline, prepare, report, run, store
from experiments.config import validate
from experiments.workers import WORKER
from tests.experiments import fakes

ROOT = Path(__file__).resolve().parents[2]
TWO_ARMS = ("experiment=quickstart", "arm=full,random", "experiment.pairs=2")


@pytest.fixture
def cli(monkeypatch, tmp_path, capfd):
    """cli(*arguments): exit code, stdout and stderr of a command with stand-ins for the long parts."""
    monkeypatch.chdir(tmp_path)
    fakes.install(lambda module, name, value: monkeypatch.setattr(module, name, value, raising=False))

    def call(*arguments):
        argv = ["run.py", "-m", "launcher=serial", "tracking=none", *arguments]
        monkeypatch.setattr(sys, "argv", argv)
        try:
            code = run.cli()
        except SystemExit as stop:
            code = stop.code
        return code, *capfd.readouterr()

    return call


def runs_of(folder):
    return sorted(path.parent.name for path in Path(folder).glob("*/record.json"))


def test_an_experiment_runs_reports_and_leaves_nothing_but_its_store(cli, tmp_path):
    code, out, err = cli(*TWO_ARMS)
    assert (code, err) == (0, "")
    assert "quickstart: 4 runs (2 cells x 2 pairs), 0 done, 4 to do" in out
    assert "report: runs/reports/quickstart/index.html" in out
    assert len(runs_of("runs")) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]
    assert len((tmp_path / "runs/reports/quickstart/runs.csv").read_text().splitlines()) == 4
    assert "python -m experiments.run -m launcher=serial" in (tmp_path / "runs/reports/quickstart/command").read_text()
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {*runs_of("runs"), "reports"}


def test_noise_and_copies_are_swept_in_one_line(cli):
    rates = ("noise.rate=0,0.2,0.4", "duplication.rate=0,0.25,1", "seed.pair=range(6)")
    code, out, err = cli("experiment=alpagasus", *rates, "plan=only")
    assert (code, err) == (0, "")
    assert "alpagasus: 486 runs (81 cells x 6 pairs), 0 done, 486 to do, 6 base models to build" in out


def test_a_report_names_no_folder_of_this_machine(cli, tmp_path):
    where = tmp_path / "somewhere"
    cli(*TWO_ARMS, f"store.root={where}")
    report = where / "reports/quickstart"
    assert (report / "command").read_text() == shlex.join(
        ["python", "-m", "experiments.run", "-m", "launcher=serial", *TWO_ARMS]
    )
    config = (report / "config.yaml").read_text()
    assert "arm: full" in config and str(tmp_path) not in config and "tracking" not in config
    cli(*TWO_ARMS, f"store.root={where}", "plan=report")
    assert (report / "config.yaml").read_text() == config  # made again, it says the same


def test_a_damaged_record_is_set_aside_and_run_again(cli):
    cli(*TWO_ARMS)
    first, second, *_ = runs_of("runs")
    whole = Path(f"runs/{first}/record.json").read_bytes()
    Path(f"runs/{first}/record.json").write_bytes(whole[:-20])
    Path(f"runs/{second}/config.yaml").write_text("a: [")  # of no use to the estimate of minutes, and no harm
    code, out, _ = cli(*TWO_ARMS, "plan=only")
    assert code == 0
    assert f"{first}: record.json is not what was written" in out and "set aside as record.json.corrupt" in out
    assert "3 done, 1 to do" in out
    code, out, _ = cli(*TWO_ARMS)
    assert code == 0 and len(runs_of("runs")) == 4
    assert Path(f"runs/{first}/record.json.corrupt").read_bytes() == whole[:-20]


def test_a_rerun_does_no_work(cli, monkeypatch):
    cli(*TWO_ARMS)
    monkeypatch.setattr(pipeline, "run", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr(prepare, "ahead", lambda _: pytest.fail("prepared again"))
    code, out, _ = cli(*TWO_ARMS)
    assert code == 0
    assert "4 done, 0 to do" in out
    assert "report: " in out


def test_a_report_is_made_again_only_where_something_is_new(cli, monkeypatch):
    made = []
    build = report.build
    monkeypatch.setattr(report, "build", lambda *given, **named: made.append(given[0]) or build(*given, **named))
    cli(*TWO_ARMS)
    assert cli(*TWO_ARMS)[0] == 0 and len(made) == 1
    cli(*TWO_ARMS, "plan=report")  # asked for
    cli(*TWO_ARMS)
    assert len(made) == 2
    cli(*TWO_ARMS, "figures=paper")  # to be told otherwise
    assert len(made) == 3
    cli(*TWO_ARMS, "tracking=offline", "plan=run")
    assert len(made) == 4
    folder = Path("runs", runs_of("runs")[0])
    store.finish(folder, json.loads((folder / "record.json").read_text()) | {"status": "another"})
    cli(*TWO_ARMS, "tracking=offline")
    assert len(made) == 5
    Path("runs/reports/quickstart/index.html").unlink()
    cli(*TWO_ARMS, "tracking=offline")
    assert len(made) == 6


def test_only_what_is_new_is_run(cli):
    cli(*TWO_ARMS)
    before = runs_of("runs")
    code, out, _ = cli("experiment=quickstart", "arm=full,random,longest", "experiment.pairs=2")
    assert code == 0
    assert "4 done, 2 to do" in out
    assert set(before) < set(runs_of("runs"))


@pytest.mark.parametrize(("wanted", "pairs"), [(3, 3), (9, 4), (1, 2), (None, 2)])
def test_a_second_stage_makes_more_pairs_up_to_a_limit(cli, monkeypatch, wanted, pairs):
    asked = []
    monkeypatch.setattr("experiments.power.pairs_wanted", lambda claims, cells, *_: asked.append(len(cells)) or wanted)
    two_stages = (*TWO_ARMS, "experiment.pairs_at_most=4")
    code, out, _ = cli(*two_stages)
    assert (code, len(runs_of("runs"))) == (0, 2 * pairs)
    assert f"the spread of the first 2 pairs asks for {wanted or 'no number of'} pairs for twice the margins" in out
    assert len(Path("runs/reports/quickstart/runs.csv").read_text().splitlines()) == 2 * pairs
    assert "0 to do" in cli(*two_stages)[1]
    assert asked == [4, 4]  # at the rerun the first pairs alone decide too


def test_a_second_stage_waits_for_the_first(cli):
    code, out, _ = cli(*TWO_ARMS, "experiment.pairs_at_most=4", "plan=only")
    assert code == 0
    assert "then, once these are done, 4 pairs at most" in out


def test_plan_only_runs_nothing(cli, monkeypatch):
    monkeypatch.setattr(pipeline, "run", lambda *_: pytest.fail("ran"))
    code, out, _ = cli(*TWO_ARMS, "plan=only")
    assert code == 0
    assert "4 to do" in out
    assert "min on 1 process" in out
    assert list(Path("runs").iterdir()) == []


def test_a_report_is_made_of_what_is_there_and_says_what_is_missing(cli, monkeypatch):
    cli(*TWO_ARMS)
    monkeypatch.setattr(pipeline, "run", lambda *_: pytest.fail("ran"))
    code, _, err = cli("experiment=quickstart", "arm=full,random,longest", "experiment.pairs=2", "plan=report")
    assert code == 1
    assert "2 of 6 runs missing" in err
    assert "was not run" in err
    assert len(Path("runs/reports/quickstart/runs.csv").read_text().splitlines()) == 4
    assert cli(*TWO_ARMS, "plan=report")[0] == 0


def test_a_failed_run_is_recorded_and_the_rest_go_on(cli, monkeypatch):
    def sometimes(config, folder):
        if config.arm == "full" and config.seed.pair == 0:
            raise ZeroDivisionError("two\nlines")
        return fakes.fake_run(config, folder)

    monkeypatch.setattr(pipeline, "run", sometimes)
    code, out, err = cli(*TWO_ARMS)
    assert code == 1
    assert len(runs_of("runs")) == 3
    (note,) = Path("runs").glob("*/failed.json")
    failed = json.loads(note.read_text())
    assert failed["error"] == "ZeroDivisionError: two lines"
    assert "Traceback" in failed["trace"]
    assert err.splitlines() == [f"1 of 4 runs missing ({failed['run_id']}): ZeroDivisionError: two lines"]
    assert "go on with" in out
    monkeypatch.setattr(pipeline, "run", fakes.fake_run)
    assert cli(*TWO_ARMS)[0] == 0
    assert len(runs_of("runs")) == 4
    assert not list(Path("runs").glob("*/failed.json"))


@pytest.mark.parametrize(
    ("survival", "certain", "tries", "code"),
    [("", False, 2, 0), ("survival.retries=3", True, 1, 1), ("survival.retries=0", False, 1, 1)],
)
def test_a_failed_run_is_tried_again_unless_it_must_fail(cli, monkeypatch, survival, certain, tries, code):
    tried = []

    def once(config, folder):
        if config.arm == "full" and config.seed.pair == 0:
            tried.append(config)
            if len(tried) == 1:
                error = RuntimeError("out of memory")
                error.certain = certain
                raise error
        return fakes.fake_run(config, folder)

    monkeypatch.setattr(pipeline, "run", once)
    found, out, _ = cli(*TWO_ARMS, *([survival] if survival else []))
    assert (found, len(tried)) == (code, tries)
    assert len(runs_of("runs")) == 3 + (code == 0)
    assert ("1 of 4 runs failed and are tried again" in out) == (tries > 1)


def test_a_mistake_found_in_every_run_is_said_once(cli, monkeypatch):
    def bad(*_):
        raise UserError("selection.threshold=9: keeps no row; lower it")

    monkeypatch.setattr(pipeline, "run", bad)
    code, _, err = cli(*TWO_ARMS)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "4 of 4 runs missing" in err
    assert "selection.threshold=9: keeps no row; lower it" in err


def test_a_full_disk_is_one_line_and_keeps_what_is_finished(cli, monkeypatch):
    full = OSError(28, "No space left on device")
    real = store.write_atomic

    def sometimes(config, folder):
        if config.arm == "random":
            monkeypatch.setattr(store, "write_atomic", lambda *_: (_ for _ in ()).throw(full))  # no notes either
            raise full
        monkeypatch.setattr(store, "write_atomic", real)
        return fakes.fake_run(config, folder)

    monkeypatch.setattr(pipeline, "run", sometimes)
    code, _, err = cli("experiment=quickstart", "arm=full,random", "experiment.pairs=1")
    assert code != 0
    assert "no space left on device" in err
    assert "Traceback" not in err
    assert len(runs_of("runs")) == 1


def test_a_store_that_is_not_writable_is_one_line(cli):
    Path("file").write_text("")
    code, out, err = cli(*TWO_ARMS, "store.root=file/runs")
    assert (code, out) == (2, "")
    assert err.startswith("error: store.root=file/runs: ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("noise.rat=0.3", "noise.rat: no such key; use one of kind, rate"),
        ("colour=red", "colour: no such key"),
        ("noise=loud", "noise=loud: no such option; use one of contradictory, correlated, mixture"),
        ("experiment=none_such", "experiment=none_such: no such option; use one of "),
        ("noise.rate=2", "noise.rate=2: should be less than or equal to 1"),
        ("selection.k=-1", "selection.k=-1: should be greater than or equal to 1"),
        ("data.path=/not/there.json", "path=/not/there.json: data=microworld makes rows of its own"),
        ("evaluation.best.metric=emm", "evaluation.best: validation has no metric 'emm'; give one of confident, em, "),
        ("data=file", "data.path=null: which file?"),
        ("evaluation.primary=ood/nll_answer", "primary: ood has no metric 'nll_answer'; give one of"),
        ("training=3", "training=3: no such option; use one of alpagasus, lora"),
        ("training=null", "training=null: no such option; use one of alpagasus, lora"),
        ("report=3", "report=3: is no value but has keys"),
        ("noise.rate=0.1,1.5", "noise.rate=1.5: should be less than or equal to 1"),
        ("plan=later", "plan=later: no such plan; use one of run, only, report"),
        ("noise.rate=[", "noise.rate=["),
        ("noise.rate", "noise.rate"),
        ("arm=nobody", "arm=nobody: no such option; use one of biased_long, biased_style, "),
    ],
)
def test_a_mistake_is_one_line_with_its_mend(cli, argument, said):
    code, out, err = cli("noise=mixture", "arm=random", argument) if "noise=" not in argument else cli(argument)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1, err
    assert err.startswith("error: ")
    assert said in err
    assert not Path("runs").exists()


def test_every_key_of_every_cell_is_checked_before_any_file_is_read(cli):
    code, out, err = cli("data=alpaca", "data.path=/not/there.json", "noise=mixture", "noise.rate=0.1,1.5")
    assert (code, out, err) == (2, "", "error: noise.rate=1.5: should be less than or equal to 1\n")
    code, out, err = cli("data=alpaca", "data.path=/not/there.json", "noise=mixture", "noise.rate=0.1,0.5")
    assert code == 2
    assert "data.path=/not/there.json: no such file" in err


@pytest.mark.parametrize(
    ("files", "arguments", "said"),
    [
        ({"rows.json": "[{"}, ["data.path=rows.json"], "data.path=rows.json: malformed JSON at line 1"),
        ({"rows.json": ""}, ["data.path=rows.json"], "data.path=rows.json"),
        (
            {"rows.json": '[{"instruction": "a", "output": 3}]'},
            ["data.path=rows.json"],
            "data.path=rows.json: no usable row among 1; the first: line 1",
        ),
        (
            {"rows.json": '[{"instruction": "a", "output": "b"}]', "pairs.csv": "a,b\n1,2\n"},
            ["data.path=rows.json", "data.pairs=pairs.csv", "arm=filtered", "selection.k=1", "selection.fraction=null"],
            "data.pairs=pairs.csv",
        ),
    ],
)
def test_files_are_read_before_anything_is_built(cli, monkeypatch, files, arguments, said):
    for name, text in files.items():
        Path(name).write_text(text)
    monkeypatch.setattr(prepare, "ahead", lambda *_: pytest.fail("built"))
    code, _, err = cli("data=file", *arguments)
    assert code == 2
    assert len(err.splitlines()) == 1, err
    assert said in err, err
    assert not list(Path("runs").glob("*/models/*")) and not runs_of("runs")


def test_one_run_without_an_experiment(cli):
    code, out, err = cli("arm=random", "seed.pair=3")
    assert (code, err) == (0, "")
    (name,) = runs_of("runs")
    assert f"random pair 3: runs/{name}" in out
    assert store.read(Path("runs") / name)["arm"] == "random"


def test_two_processes_do_not_repeat_each_other(configured, monkeypatch):
    config = configured("tracking=none")
    fakes.install(lambda module, name, value: monkeypatch.setattr(module, name, value, raising=False))
    assert run.execute(config)["error"] is None
    monkeypatch.setattr(pipeline, "run", lambda *_: pytest.fail("ran again"))
    assert run.execute(config)["error"] is None


def test_two_runs_of_a_config_give_the_same_record(composed, tmp_path):
    """Everything is made twice, base and reward model included; nothing is replaced."""
    records = []
    for place in ("one", "two"):
        config = validate(
            composed("debug=tiny", "arm=filtered", "noise=mixture", f"store.root={tmp_path / place}", "tracking=none")
        )
        outcome = run.execute(config)
        assert outcome["error"] is None
        record = store.read(tmp_path / place / outcome["run_id"])
        del record["cost"], record["environment"]
        records.append(store.canonical(record))
    assert records[0] == records[1]


# --- processes ------------------------------------------------------------------------------------------------------


def start(tmp_path, *arguments, **environment):
    command = [
        sys.executable,
        "-m",
        "tests.experiments.fakes",
        "-m",
        f"store.root={tmp_path / 'runs'}",
        "tracking=none",
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "FAKE_PROCESS": "1", **environment}
    return subprocess.Popen(
        [*command, *arguments],
        cwd=tmp_path,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # a shell hands its background jobs an ignored Ctrl-C, and so would these tests when they are such a job
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(process, condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def test_kill_9_keeps_what_is_finished_and_the_same_command_goes_on(tmp_path):
    arguments = (*TWO_ARMS, "launcher=serial")
    process = start(tmp_path, *arguments, FAKE_SECONDS="0.4")
    wait_for(process, lambda: len(runs_of(tmp_path / "runs")) == 2)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    kept = {name: (tmp_path / "runs" / name / "record.json").read_bytes() for name in runs_of(tmp_path / "runs")}
    assert 2 <= len(kept) < 4
    again = start(tmp_path, *arguments)
    out, err = again.communicate(timeout=120)
    assert (again.returncode, err) == (0, "")
    assert f"{len(kept)} done, {4 - len(kept)} to do" in out
    assert len(runs_of(tmp_path / "runs")) == 4
    for name, record in kept.items():
        assert (tmp_path / "runs" / name / "record.json").read_bytes() == record


def test_ctrl_c_stops_and_says_how_to_go_on(tmp_path):
    process = start(tmp_path, *TWO_ARMS, "launcher=serial", FAKE_SECONDS="0.5")
    wait_for(process, lambda: len(runs_of(tmp_path / "runs")) == 1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert "Traceback" not in err
    assert "runs are done and kept; go on with" in out
    assert "python -m experiments.run" in out


def test_a_worker_that_is_killed_takes_no_other_run_with_it(tmp_path):
    arguments = ("experiment=quickstart", "arm=full,random", "experiment.pairs=3", "hydra.launcher.n_jobs=2")
    process = start(tmp_path, *arguments, FAKE_DEATH="random:1")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert len(runs_of(tmp_path / "runs")) == 5
    (note,) = (tmp_path / "runs").glob("*/failed.json")
    assert "its process was killed" in json.loads(note.read_text())["error"]
    assert "1 of 6 runs missing" in err
    assert "Traceback" not in err
    assert "5 done, 1 to do" in start(tmp_path, *arguments).communicate(timeout=120)[0]
    assert len(runs_of(tmp_path / "runs")) == 6


def test_workers_that_are_killed_while_they_build_cost_no_run(tmp_path):
    process = start(tmp_path, *TWO_ARMS, "hydra.launcher.n_jobs=2", FAKE_AHEAD="1")
    wait_for(process, lambda: list((tmp_path / "runs" / "cache" / "models").glob("base-*")))  # one is being built
    for worker in psutil.Process(process.pid).children():
        if WORKER in " ".join(worker.cmdline()):
            worker.kill()
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, ""), out
    assert len(runs_of(tmp_path / "runs")) == 4


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_workers_end_with_the_sweep_that_is_killed(tmp_path):
    process = start(tmp_path, *TWO_ARMS, "hydra.launcher.n_jobs=2", FAKE_SECONDS="1")
    wait_for(process, lambda: len(list((tmp_path / "runs").glob("*/config.yaml"))) >= 2)
    workers = [
        int(status.parent.name)
        for status in Path("/proc").glob("[0-9]*/status")
        if f"PPid:\t{process.pid}\n" in status.read_text() and WORKER in (status.parent / "cmdline").read_text()
    ]
    assert workers
    process.kill()
    process.wait(timeout=20)
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline, "a worker goes on"
        time.sleep(0.1)
