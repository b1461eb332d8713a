"""wandb gets what the store has, says nothing and stops nothing."""

import json
import subprocess
import sys
from base64 import b64encode
from hashlib import md5
from pathlib import Path

import pytest
import wandb

from experiments import UserError, store, tracking
from experiments.config import validate

QUOTED = [{"id": "alpagasus", "metric": "ood/em", "value": 0.7, "source": "arXiv:2307.08701"}]


@pytest.fixture
def run(configured):
    """A config and the folder and record of its finished run."""

    def make(*overrides):
        config = configured("arm=filtered", *overrides)
        folder = store.open_run(store.run_folder(config.store.root, "0123456789abcdef"), {})
        with store.MetricsLog(folder) as log:
            for step, value in ((48, 0.25), (96, 0.5), (144, 0.75)):
                for suite in ("ood", "id"):
                    row = {"tokens": step * 1000, "step": step, "epoch": step / 128, "suite": suite}
                    log.write(**row, metric="em", value=value)
        cell = {"em": {"value": 0.75, "n": 900}}
        (folder / store.SUBSET).write_text("id,hash\nrow1,00ff\n")
        record = {
            "run_id": "0123456789abcdef",
            "metrics": {"end": {"ood": cell}, "best_val": {"ood": cell}},
            "data": {"rows": 725, "subset_hash": "x"},
            "cost": {"train_s": 9.5, "train_s_at": {"48": 1.0}},
        }
        store.finish(folder, record)
        return config, folder, record

    return make


def read_back(root):
    """All records of the one run that wandb wrote under `root`."""
    (log,) = Path(root).glob("wandb/offline-run-*/run-*.wandb")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(log)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in text.splitlines()]


def parts(rows, kind):
    return [row[kind] for row in rows if row["type"] == kind]


def test_an_offline_run_reads_back_with_its_curve(run, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    config, folder, record = run()
    tracking.mirror(config, folder, record, experiment="quickstart", quoted=QUOTED)
    assert capfd.readouterr() == ("", "")
    assert not (tmp_path / "home").exists()
    rows = read_back(tmp_path)

    (about,) = parts(rows, "run")
    assert (about["run_id"], about["run_group"], about["job_type"]) == (record["run_id"], "quickstart", "filtered")
    assert about["project"] == "quality-vs-quantity"
    assert about["config"]["update"]["selection"]["fraction"] == 0.177
    assert "store" not in about["config"]["update"]
    assert any(metric.get("step_metric") == "tokens" for metric in parts(rows, "metric"))

    assert {"selection=top_fraction", "microworld"} <= set(about["tags"])
    defined = {metric["name"]: metric for metric in parts(rows, "metric") if "name" in metric}
    for name in ("ood/em", "id/em"):
        assert defined[name]["step_metric"] == "tokens"
        assert defined[name]["summary"] == {"min": True, "max": True}

    curve = [item["item"] for item in parts(rows, "history") if "ood/em" in item["item"]]
    assert [(point["tokens"], point["ood/em"]) for point in curve] == [(48000, 0.25), (96000, 0.5), (144000, 0.75)]
    assert {point["quoted/alpagasus"] for point in curve} == {0.7}
    (table,) = Path(tmp_path).glob("wandb/offline-run-*/files/media/table/claims/*.json")
    series = json.loads(table.read_text())["data"]
    assert [(x, y) for x, name, y in series if name == "quoted: arXiv:2307.08701"] == [
        (48000, 0.7),
        (96000, 0.7),
        (144000, 0.7),
    ]
    assert [(x, y) for x, name, y in series if name == "ood/em"] == [(48000, 0.25), (96000, 0.5), (144000, 0.75)]

    summary = {key: value for part in parts(rows, "summary") for key, value in part["update"].items()}
    assert summary["best_val/ood/em"] == 0.75
    assert summary["ood/em"] == {"min": 0.25, "max": 0.75}
    assert summary["cost/train_s"] == 9.5
    assert summary["data/rows"] == 725


def test_which_rows_were_trained_on_is_an_artifact_of_ids_and_hashes(run, tmp_path):
    config, folder, record = run()
    tracking.mirror(config, folder, record)
    (artifact,) = [one for one in parts(read_back(tmp_path), "artifact") if one["type"] == "subset"]
    assert artifact["name"] == "subset-x"
    assert json.loads(artifact["metadata"])["rows"] == 725
    (entry,) = artifact["manifest"]["contents"]
    assert (entry["path"], entry["local_path"]) == ("subset.csv", str(folder / "subset.csv"))
    assert entry["digest"] == b64encode(md5((folder / "subset.csv").read_bytes()).digest()).decode()


def test_models_are_artifacts_on_request(run, tmp_path, composed):
    config, folder, record = run("tracking.models=true", "model.save=true")
    (folder / "model").mkdir()
    (folder / "model" / "weights").write_text("heavy")
    tracking.mirror(config, folder, record)
    (artifact,) = [one for one in parts(read_back(tmp_path), "artifact") if one["type"] == "model"]
    assert artifact["name"] == f"model-{record['run_id']}"
    assert [one["local_path"] for one in artifact["manifest"]["contents"]] == [str(folder / "model" / "weights")]
    with pytest.raises(UserError, match=r"tracking.models=true: .*model.save=true"):
        validate(composed("tracking.models=true"))


@pytest.mark.parametrize("broken", ["Run.log_artifact", "plot.line_series"])
def test_what_fails_to_be_sent_leaves_the_rest(run, tmp_path, capfd, monkeypatch, broken):
    def fails(*_, **__):
        raise OSError("no\nluck")

    monkeypatch.setattr(f"wandb.{broken}", fails)
    config, folder, record = run()
    tracking.mirror(config, folder, record, quoted=QUOTED)
    lost = {"Run.log_artifact": ["quoted figures", "subset"], "plot.line_series": ["quoted figures"]}[broken]
    said = [f"wandb: {what}: no luck; the store in {folder} is complete without it" for what in lost]
    assert capfd.readouterr().err.splitlines() == said
    rows = read_back(tmp_path)
    assert len([one for one in parts(rows, "history") if "ood/em" in one["item"]]) == 3
    assert any(part["update"].get("best_val/ood/em") == 0.75 for part in parts(rows, "summary"))
    assert any(one["type"] == "subset" for one in parts(rows, "artifact")) == ("subset" not in lost)
    assert [one["exit_code"] for one in parts(rows, "exit")] == [0]


def test_it_can_be_switched_off(run, tmp_path):
    config, folder, record = run("tracking=none")
    tracking.mirror(config, folder, record)
    assert not (tmp_path / "wandb").exists()


def test_online_without_a_key_or_a_server_is_offline_and_asked_once(run, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(tracking, "_unreachable", False)
    monkeypatch.setattr(tracking, "_logged_in", lambda: True)
    real, modes = wandb.init, []

    def no_server(**options):
        modes.append(options["settings"].mode)
        if modes[-1] == "online":
            raise wandb.errors.CommError("timed out")
        return real(**options)

    monkeypatch.setattr(wandb, "init", no_server)
    config, folder, record = run("tracking=online")
    tracking.mirror(config, folder, record)
    tracking.mirror(config, folder, record)
    assert modes == ["online", "offline", "offline"]
    err = capfd.readouterr().err
    assert err.count("not online (timed out)") == 1
    assert list(tmp_path.glob("wandb/offline-run-*"))


def test_online_does_not_ask_for_a_key(run, capfd, monkeypatch, tmp_path):
    monkeypatch.setattr(tracking, "_unreachable", False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    config, folder, record = run("tracking=online")
    tracking.mirror(config, folder, record)
    assert "no API key" in capfd.readouterr().err


def test_trouble_with_wandb_is_one_line_and_no_exception(run, capfd, monkeypatch):
    monkeypatch.setattr(wandb, "init", lambda **_: (_ for _ in ()).throw(RuntimeError("two\nlines")))
    config, folder, record = run()
    tracking.mirror(config, folder, record)
    out, err = capfd.readouterr()
    assert err.splitlines() == [f"wandb: two lines; the store in {folder} is complete without it"]
    assert out == ""


def test_secrets_do_not_reach_wandb(run, monkeypatch):
    config, folder, record = run()
    seen = {}
    monkeypatch.setattr(wandb, "init", lambda **options: seen.update(options) or pytest.fail("stop"))
    monkeypatch.setattr(type(config), "model_dump", lambda *_, **__: {"judge": {"api_key": "s3cret"}})
    with pytest.raises(pytest.fail.Exception):
        tracking.mirror(config, folder, record)
    assert seen["config"] == {"judge": {"api_key": "***"}}
    assert not seen["settings"].save_code


def test_no_file_of_wandb_holds_a_key_of_the_environment(run, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "s3cret" * 7)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hidden")
    config, folder, record = run("tracking=offline")
    tracking.mirror(config, folder, record, experiment="quickstart", quoted=QUOTED)
    files = [path.read_bytes() for path in (tmp_path / "wandb").rglob("*") if path.is_file()]
    assert len(files) > 3
    assert not [data for data in files if b"s3cret" in data or b"sk-hidden" in data]
