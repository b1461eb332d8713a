"""Several experiments in one command: what they share is planned once, what is finished is passed over."""

import io
import json
import sys
from types import SimpleNamespace

import pytest
from hydra_plugins.paired_sweeper import forecast
from rich.console import Console

from experiments import UserError, campaign, claim_files, prepare, store


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=200)


@pytest.mark.soak  # a thousand configs
def test_every_experiment_of_the_campaign_is_planned_and_its_claims_can_be_decided(tmp_path):
    ids, named = set(), []
    for name in campaign.EXPERIMENTS:
        plan, claims = campaign.planned(name, [f"store.root={tmp_path}"])
        ids |= plan.configs.keys()
        named += [(name, claim.id) for claim in claims]
        assert len({cell.seeds["base"] for cell in plan.cells}) >= 2
    assert len(ids) <= 900
    assert len(set(named)) == len(named) >= 30


def test_a_claim_that_the_runs_cannot_decide_is_told_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(claim_files, "undecidable", lambda *_: "no such runs")
    with pytest.raises(UserError, match="no such runs"):
        campaign.planned("alpagasus", [f"store.root={tmp_path}"])


def test_what_is_up_to_date_is_passed_over_and_the_rest_is_run(tmp_path, monkeypatch, console):
    called = []

    def done(command):
        called.append(command)
        name = command[3].removeprefix("experiment=")
        plan, claims = campaign.planned(name, [f"store.root={tmp_path}"])
        report = tmp_path / "reports" / name
        judged = [{"definition": claim.model_dump(mode="json")} for claim in claims]
        store.write_atomic(report / "claims.json", json.dumps(judged))
        store.write_atomic(report / "manifest.json", json.dumps({"runs": sorted(plan.configs), "missing": []}))
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(campaign.subprocess, "run", done)
    monkeypatch.setattr(campaign.report, "claim_table", lambda judged: f"{len(judged)} claims")
    names = ("pareto", "alpagasus_steps")
    assert campaign.campaign([f"store.root={tmp_path}"], console, names) == 0
    assert [command[:4] for command in called] == [
        [sys.executable, "-m", "experiments.run", f"experiment={name}"] for name in names
    ]
    assert campaign.campaign([f"store.root={tmp_path}"], console, names) == 0
    assert len(called) == 2
    # a claim that says something else now is judged again
    path = tmp_path / "reports" / names[1] / "claims.json"
    path.write_text(path.read_text().replace('"margin": 0.02', '"margin": 0.01'))
    assert campaign.campaign([f"store.root={tmp_path}"], console, names) == 0
    assert called[-1][3] == f"experiment={names[1]}" and len(called) == 3


def test_the_time_left_counts_base_models_that_are_built_and_those_that_are_not(tmp_path, monkeypatch, console):
    names, hours = ("pareto", "label_noise"), iter((0, 0, 3600))
    plans = [campaign.planned(name, [f"store.root={tmp_path}"])[0] for name in names]
    bases = [{prepare.base_folder(config) for config in plan.configs.values()} for plan in plans]
    monkeypatch.setattr(campaign, "time", SimpleNamespace(monotonic=lambda: next(hours)))  # not everybody's clock
    monkeypatch.setattr(campaign.report, "claim_table", lambda judged: "")

    def first_alone(command):
        if not any(tmp_path.iterdir()):
            for folder in bases[0]:
                folder.mkdir(parents=True)
            for run_id in plans[0].configs:
                store.write_atomic(tmp_path / run_id / store.RECORD, "{}")
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(campaign.subprocess, "run", first_alone)
    campaign.campaign([f"store.root={tmp_path}"], console, names)
    a_base = forecast.BASE_S / forecast.RUN_S
    done = len(plans[0].configs) + len(bases[0]) * a_base
    left = len(plans[1].configs.keys() - plans[0].configs.keys()) + len(bases[1] - bases[0]) * a_base
    assert len(bases[1] - bases[0]) > 6  # of other sizes, which take as long as many runs
    assert f"about {round(60 * left / done)} min left" in console.file.getvalue()


@pytest.mark.parametrize(("codes", "code", "runs"), [((0, 1), 1, 2), ((1, 0), 1, 2), ((130, 0), 130, 1)])
def test_one_that_fails_does_not_keep_the_next_from_being_run(tmp_path, monkeypatch, console, codes, code, runs):
    called = []
    left = list(codes)

    def fail(command):
        called.append(command)
        return type("Done", (), {"returncode": left.pop(0)})

    monkeypatch.setattr(campaign.subprocess, "run", fail)
    names = ("pareto", "alpagasus_steps")
    assert campaign.campaign([f"store.root={tmp_path}"], console, names) == code
    assert len(called) == runs
    assert ("go on with" in console.file.getvalue()) == (code == 130)


def test_a_mistake_is_one_line(capsys):
    assert campaign.main(["nonsense=1"]) == 2
    assert "nonsense" in capsys.readouterr().err
    assert campaign.main(["--help"]) == 0
