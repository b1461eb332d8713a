"""What wandb gets of an experiment: one run with its tables and its page, read back from the file that is sent."""

import json
import lzma
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb

from experiments import tracking_report
from experiments.config import TrackingConfig
from tests.experiments.test_tracking import parts, read_back

PUBLISHED = Path(__file__).resolve().parents[2] / "results" / "quickstart"
EVALUATION = SimpleNamespace(
    primary="ood/em", mode="max", best=SimpleNamespace(suite="valid", metric="em", mode="max")
)  # fmt: skip


@pytest.fixture
def judged():
    return json.loads((PUBLISHED / "claims.json").read_text(encoding="utf-8"))


@pytest.fixture
def mirrored(tmp_path, judged):
    """mirrored(): the published report is sent offline; the store that it is in."""
    out = tmp_path / "reports" / "quickstart"
    out.mkdir(parents=True)
    (out / "claims.json").write_bytes((PUBLISHED / "claims.json").read_bytes())
    (out / "index.html").write_text("<!doctype html><title>quickstart</title>")
    (out / "runs.csv").write_bytes(lzma.decompress((PUBLISHED / "runs.csv.xz").read_bytes()))

    def send(mode="offline", **keys):
        tracking_report.mirror(TrackingConfig(mode=mode, **keys), tmp_path, "quickstart", judged, out, EVALUATION)
        return tmp_path

    return send


def tables(root):
    """Name -> rows as dicts, of what was logged as a table."""
    found = {}
    for path in Path(root).glob("wandb/offline-run-*/files/media/table/*.table.json"):
        table = json.loads(path.read_text(encoding="utf-8"))
        found[path.name.split("_")[0]] = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    return found


def test_a_report_is_one_run_with_its_tables_and_its_page(mirrored, judged, capfd, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "s3cret" * 7)
    root = mirrored()
    assert capfd.readouterr() == ("", "")
    rows = read_back(root)
    (about,) = parts(rows, "run")
    assert (about["run_id"], about["run_group"], about["job_type"]) == ("report-quickstart", "quickstart", "report")
    found = tables(root)
    assert {row["id"]: row["verdict"] for row in found["claims"]} == {one["id"]: one["verdict"] for one in judged}
    arms = {row["arm"]: row for row in found["arms"]}
    assert (arms["full"]["pairs"], arms["full"]["less full"]) == (6, None)
    assert arms["filtered"]["less full"] == pytest.approx(arms["filtered"]["score"] - arms["full"]["score"])
    assert arms["filtered"]["less full"] > 0
    manifest = json.loads((PUBLISHED / "manifest.json").read_text(encoding="utf-8"))
    assert {row["run_id"] for row in found["runs"]} == set(manifest["runs"])
    mine = [row["ood/em"] for row in found["runs"] if row["arm"] == "filtered"]
    assert sum(mine) / len(mine) == pytest.approx(arms["filtered"]["score"])
    summary = {key: value for part in parts(rows, "summary") for key, value in part["update"].items()}
    assert {key for key in summary if key.startswith("verdict/")} == {f"verdict/{one['id']}" for one in judged}
    (page,) = root.glob("wandb/offline-run-*/files/media/html/*.html")
    assert page.read_bytes() == (root / "reports" / "quickstart" / "index.html").read_bytes()
    written = [path.read_bytes() for path in (root / "wandb").rglob("*") if path.is_file()]
    assert not [data for data in written if b"s3cret" in data]

    mirrored()  # the same numbers are not sent again
    assert len(list(root.glob("wandb/offline-run-*"))) == 1


def test_a_table_that_fails_leaves_the_rest(mirrored, capfd, monkeypatch):
    def fails(*_):
        raise TypeError("no\ntable")

    monkeypatch.setattr(tracking_report, "arms_table", fails)
    root = mirrored()
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("wandb: table of arms: no table; the report in ")
    assert set(tables(root)) == {"claims", "runs"}
    assert list(root.glob("wandb/offline-run-*/files/media/html/*.html"))
    assert [one["exit_code"] for one in parts(read_back(root), "exit")] == [0]


def test_without_wandb_there_is_one_line_and_the_next_report_tries_again(mirrored, capfd, monkeypatch):
    tried = []
    monkeypatch.setattr(wandb, "init", lambda **_: tried.append(1) or (_ for _ in ()).throw(RuntimeError("no disk")))
    mirrored()
    mirrored()
    assert len(tried) == 2
    assert capfd.readouterr().err.count("wandb: report: no disk; the report in ") == 2


def test_the_page_with_its_rows_can_stay_here(mirrored):
    root = mirrored(page=False)
    assert {"claims", "arms", "runs"} <= set(tables(root))
    assert not list(root.glob("wandb/offline-run-*/files/media/html/*"))
    assert not any("report" in str(row) and "html-file" in str(row) for row in read_back(root))


def test_it_can_be_switched_off(mirrored):
    assert not (mirrored("none") / "wandb").exists()
