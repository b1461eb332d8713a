"""The plan: which runs, each once, in which order, and that a job composes to the very run that was planned."""

import contextlib
import io
import json
import os
import re
import threading
import time
from types import SimpleNamespace

import pytest
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from hydra_plugins.paired_sweeper import forecast, progress
from hydra_plugins.paired_sweeper import plan as planning
from omegaconf import OmegaConf
from rich.console import Console

from experiments import UserError, store
from experiments.config import run_id, validate
from experiments.report.terminal import claim_table
from experiments.run import CONF


@pytest.fixture
def make(tmp_path):
    """make(*arguments): the plan of a command line and a function that composes a job as a launcher does."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()

        def planned(*arguments):
            arguments = [f"store.root={tmp_path}", *arguments]
            master = loader.load_configuration("config", arguments, RunMode.MULTIRUN)
            plan = planning.make_plan(loader, master, OmegaConf.to_container(master.hydra.overrides.task))
            return plan, lambda overrides: without_hydra(loader.load_sweep_config(master, list(overrides)))

        yield planned


def without_hydra(tree):
    """As Hydra hands it to a job."""
    OmegaConf.set_readonly(tree, False)
    OmegaConf.set_struct(tree, False)
    del tree["hydra"]
    return tree


def test_quickstart_is_nine_cells_of_six_pairs(make):
    plan, _ = make("experiment=quickstart")
    assert len(plan.cells) == len(plan.configs) == 54
    assert {cell.arm for cell in plan.cells} == {
        "full", "filtered", "filtered_bt", "oracle", "random", "random_length_matched", "longest", "duplicated",
    }  # fmt: skip
    assert {config.noise.rate for config in plan.configs.values()} == {0.5}
    assert {config.selection.fraction for config in plan.configs.values()} == {None, 0.177}
    assert [cell.seeds["base"] for cell in plan.cells[::9]] == [0, 1, 2, 0, 1, 2]


def test_a_job_composes_to_the_run_that_was_planned(make):
    plan, compose = make("experiment=quickstart", "noise.rate=0.4", "experiment.pairs=2")
    for name, overrides in plan.overrides.items():
        assert run_id(validate(compose(overrides))) == name
    assert all(config.noise.rate == 0.4 for config in plan.configs.values())


@pytest.mark.parametrize("value", ["12", "true", "null", "a b", "a,b", "it's", 'say "x"', "ünïcode", "[1]", "a/b.json"])
def test_any_text_survives_the_way_to_a_job(make, value):
    _, compose = make()
    tree = compose([f"tracking.project={planning._encode(value)}"])
    assert tree.tracking.project == value


def test_levels_are_what_a_cell_has_for_every_swept_key(make):
    plan, _ = make("experiment=quickstart", "experiment.pairs=1")
    levels = {(cell.arm, cell.levels["duplication.rate"]): cell.levels for cell in plan.cells}
    assert levels["full", 0.0] == {"duplication": "none", "duplication.rate": 0.0, "duplication.k": None}
    assert levels["duplicated", 1.0] == {"duplication": "concentrated", "duplication.rate": 1.0, "duplication.k": 16}


def test_runs_of_one_model_are_told_from_those_of_another(make):
    """By what is trained, not by its seeds or settings: see `table`, which times a model's runs together."""
    plan, _ = make("experiment=data_vs_model")
    models: dict[str, set[str]] = {}
    for cell in plan.cells:
        models.setdefault(cell.levels["model"], set()).add(cell.model)
    assert models.keys() == {"micro", "micro_2x", "micro_4x"}
    assert len(set.union(*models.values())) == 3 == sum(map(len, models.values()))


def test_equal_runs_are_merged_and_cells_kept(make):
    plan, _ = make("experiment=quickstart", "arm=full,random", "selection.fraction=0.1,0.2", "seed.pair=range(2)")
    assert len(plan.cells) == 8
    assert len(plan.configs) == 2 * (1 + 2)  # all of the pool is the same set whatever a selection would keep
    full = [cell for cell in plan.cells if cell.arm == "full" and cell.seeds["pair"] == 0]
    assert len({cell.run_id for cell in full}) == 1
    assert {cell.levels["selection.fraction"] for cell in full} == {0.1, 0.2}


def test_an_axis_crosses_an_experiment_and_overrides_its_blocks(make):
    plan, _ = make("experiment=quickstart", "noise.rate=0,0.2", "arm=full", "seed.pair=range(3)")
    assert sorted({c.noise.rate for c in plan.configs.values()}) == [0.0, 0.2]
    assert len(plan.configs) == 6
    plan, _ = make("experiment=quickstart", "duplication.rate=0.5", "arm=duplicated", "seed.pair=0")
    assert [cell.levels["duplication.rate"] for cell in plan.cells] == [0.5, 0.5]


def test_without_an_experiment_one_run_or_the_axes(make):
    plan, _ = make("arm=filtered", "seed.pair=4")
    assert [(cell.arm, cell.seeds["pair"]) for cell in plan.cells] == [("filtered", 4)]
    plan, _ = make("noise=none,mixture,truncated")
    assert [cell.levels["noise"] for cell in plan.cells] == ["none", "mixture", "truncated"]


def test_runs_come_pair_by_pair(make):
    plan, _ = make("experiment=quickstart", "experiment.pairs=3")
    pairs = [config.seed.pair for config in plan.configs.values()]
    assert pairs == sorted(pairs)
    assert pairs.count(0) == 9


def test_every_cell_is_checked_before_anything_runs(make):
    with pytest.raises(UserError, match=r"noise\.rate=1\.2"):
        make("noise=mixture", "noise.rate=0.2,1.2")
    with pytest.raises(UserError, match=r"noise\.rat=0\.2: no such key; use one of kind, rate"):
        make("experiment=quickstart", "experiment.sweep=[{noise.rat: 0.2}]")
    with pytest.raises(UserError, match=r"interval.*range"):
        make("noise.rate=interval(0,1)")


def test_interpolations_follow_the_values_that_are_set(make):
    plan, compose = make("noise=mixture", "selection.fraction=${noise.rate}", "arm=random", "noise.rate=0.2,0.4")
    assert [config.selection.fraction for config in plan.configs.values()] == [0.2, 0.4]
    for name, overrides in plan.overrides.items():
        assert run_id(validate(compose(overrides))) == name


def test_each_choice_of_groups_is_composed_once(make, monkeypatch):
    composed = []
    whole = ConfigLoaderImpl.load_sweep_config
    monkeypatch.setattr(
        ConfigLoaderImpl, "load_sweep_config", lambda *arguments: composed.append(1) or whole(*arguments)
    )
    plan, _ = make("arm=full,random", "noise=mixture", "noise.rate=range(0,1,0.1)", "seed.pair=range(50)")
    assert len(plan.cells) == 1_000
    assert len(composed) == 2


# --- what the plan says ---------------------------------------------------------------------------------------------


def test_the_plan_is_described_with_minutes_and_their_source(make, monkeypatch):
    monkeypatch.setattr(forecast, "_probe", lambda: forecast.PROBE_S * 2)
    plan, _ = make("experiment=quickstart")
    text = forecast.describe(plan, list(plan.configs), 2, "quickstart")
    assert "quickstart: 54 runs (9 cells x 6 pairs), 0 done, 54 to do, 3 base models to build" in text
    minutes = (forecast.RUN_S * 54 + forecast.BASE_S * 3) * 2 / 2 / 60
    assert f"about {round(minutes)} min on 2 processes" in text
    assert "scaled by this machine's speed" in text
    assert "memory" not in text  # of which nothing is known yet


@pytest.fixture
def with_history(make):
    """A plan of 27 runs of which all but one are done, and what is left."""
    plan, _ = make("experiment=quickstart", "experiment.pairs=3")
    *done, last = plan.configs
    for number, name in enumerate(done):
        folder = store.open_run(store.run_folder(plan.root, name), plan.configs[name].model_dump(mode="json"))
        cost = {"train_s": 200.0, "eval_s": 40.0, "peak_memory_mb": 700.0 - number}
        store.finish(folder, {"cost": cost})
    return plan, last


def test_minutes_memory_and_disk_come_from_the_store_once_it_has_such_runs(with_history, make):
    plan, last = with_history
    known = forecast.history(plan.root, plan.configs[last])
    assert (known.runs, known.seconds) == (20, 240.0)
    assert 680 < known.memory_mb <= 700  # the worst of those twenty
    one = next(path.parent for path in plan.root.glob("*/record.json"))
    assert known.disk == pytest.approx(sum(path.stat().st_size for path in one.iterdir()), rel=0.02)
    text = forecast.describe(plan, [last], 2, "quickstart")
    assert " min on 1 process (mean of the last 20 runs here)" in text
    assert f"up to {known.memory_mb:,.0f} MB of memory of " in text and " MB on the disk of " in text
    assert "MB of memory" not in forecast.describe(plan, [last], 2, "quickstart", here=False)
    other, _ = make("training.steps=100")
    assert forecast.history(plan.root, next(iter(other.configs.values()))) is None


def test_too_little_memory_or_disk_is_said_beforehand(with_history, monkeypatch):
    plan, last = with_history
    monkeypatch.setattr(forecast.psutil, "virtual_memory", lambda: SimpleNamespace(available=600 * 2**20))
    monkeypatch.setattr(forecast.shutil, "disk_usage", lambda root: SimpleNamespace(free=1000))
    text = forecast.describe(plan, [last], 2, None)
    assert "more memory than there is; take fewer processes: hydra.launcher.n_jobs=1" in text
    assert "more than the disk has room for; choose another one with store.root=FOLDER" in text


# --- the monitor ----------------------------------------------------------------------------------------------------


COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|38|9[0-7])(?:;\d+)*m")


def started(plan, name, steps=()):
    """The folder of a run that has been evaluated after `steps`."""
    folder = store.open_run(store.run_folder(plan.root, name), {})
    with store.MetricsLog(folder) as log:
        for step in steps:
            row = {"tokens": 100 * step, "step": step, "epoch": step / 100}
            log.write(**row, suite="ood", metric="em", value=step / 1000)
            log.write(**row, suite="train", metric="loss", value=1.0)
    return folder


def record_of(value):
    return {"metrics": {"best_val": {"ood": {"em": {"value": value, "n": 9}}}}, "cost": {"train_s": 11.4}}


def until(told, what):
    """Wait until `told()` has `what` in it."""
    end = time.monotonic() + 10
    while what not in told():
        assert time.monotonic() < end, told()
        time.sleep(0.01)


def test_without_a_terminal_each_run_that_is_over_is_a_line_and_the_first_pair_a_table(make, monkeypatch):
    from experiments import report

    shown = []
    monkeypatch.setattr(report, "arm_table", lambda *a, **_: shown.append(a) or "the table", raising=False)
    monkeypatch.setattr(progress, "POLL_S", 0.01)
    plan, _ = make("experiment=quickstart", "arm=full,random", "experiment.pairs=2")
    out = io.StringIO()
    with progress.Monitor(plan, list(plan.configs), Console(file=out, width=200)):
        for number, name in enumerate(plan.configs, 1):
            folder = started(plan, name)
            if number < 4:
                store.finish(folder, record_of(0.5 + number / 100))
            else:
                store.fail(folder, name, "no [red]luck")
            until(out.getvalue, f"{number}/4 ")
            if number == 2:
                until(out.getvalue, "the table")
    lines = out.getvalue().splitlines()
    assert re.fullmatch(r"1/4 full pair 0.*: ood/em 0.510, 11 s of training; about \d+ s left", lines[0])
    assert lines[-1].startswith("4/4 random pair 1") and lines[-1].endswith(": failed: no [red]luck")
    assert lines[2:4] == ["the first pair of arms (one pair decides nothing yet)", "the table"]
    assert len(shown) == 1 and len(lines) == 6
    assert "\x1b" not in out.getvalue()


@pytest.fixture
def terminal():
    """terminal(): a console on a pseudo-terminal, and a function for all that it has been sent."""
    ends, seen = [], []

    def open_terminal():
        master, slave = os.openpty()
        ends.append(open(slave, "w", encoding="utf-8"))  # noqa: SIM115 (closed below)

        def read():
            with contextlib.suppress(OSError):  # of a terminal whose other end is gone
                while data := os.read(master, 4096):
                    seen.append(data)
            os.close(master)

        threading.Thread(target=read, daemon=True).start()
        return Console(file=ends[-1], width=120, highlight=False), lambda: b"".join(seen).decode(errors="replace")

    yield open_terminal
    for end in ends:
        end.close()


@pytest.mark.parametrize("plain", [False, True], ids=["colours", "NO_COLOR"])
def test_on_a_terminal_the_sweep_and_each_run_under_way_has_a_bar(make, monkeypatch, terminal, plain):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if plain:
        monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(progress, "POLL_S", 0.01)
    plan, _ = make("experiment=quickstart", "arm=full", "experiment.pairs=3")
    first, second, old = plan.configs
    os.utime(started(plan, old, [192]) / "config.yaml", (0, 0))  # as a sweep that was killed has left it
    console, told = terminal()
    with progress.Monitor(plan, list(plan.configs), console):
        store.finish(started(plan, first, [48, 384]), record_of(0.5))
        until(told, "1/3, about")
        folder = started(plan, second, [48, 96])
        until(told, "step 96, ood/em 0.096")
        store.finish(folder, record_of(0.5))
        until(told, "2/3, about")
    claims = json.loads((CONF.parent / "results" / "quickstart" / "claims.json").read_text())
    console.print(claim_table(claims))
    until(told, claims[-1]["title"][:20])
    assert "full pair 1" in told() and "step 192" not in told()
    assert bool(COLOUR.search(told())) != plain


def test_the_share_of_a_budget_is_of_steps_epochs_or_tokens(configured):
    point = {"step": 96, "epoch": 1.5, "tokens": 3000}
    config, shares = configured(), []
    for budget in ({"steps": 384}, {"epochs": 2.0}, {"tokens": 2000}):
        training = config.training.model_copy(update={"steps": None, **budget})
        shares.append(progress.share(config.model_copy(update={"training": training}), point))
    assert shares == [0.25, 0.75, 1.0]
