"""The published table says what the claims.json files say, and its numbers are those of the records."""

import json
import lzma
from pathlib import Path

import pytest
import yaml
from synthetic import BEST, quickstart

from experiments import UserError, claim_files, claims, evidence, exchange, store
from experiments import table as tables
from experiments.suites.config import METRICS

RESULTS = Path(__file__).resolve().parents[2] / "results"


@pytest.fixture
def published(tmp_path):
    """A folder with one exported experiment and a page for the table."""
    cells, records = quickstart(pairs=3)
    root, report = tmp_path / "runs", tmp_path / "runs" / "reports" / "quick"
    for run_id, record in records.items():
        store.finish(store.open_run(store.run_folder(root, run_id), {}), record)
    table = tables.write(report / "runs.csv", tables.runs_table(cells, records, BEST))
    named = claim_files.load(["alpagasus_full", "longest_selection"])
    store.write_atomic(
        report / "claims.json", store.canonical(claims.judge(named, table, best=BEST, experiment="quick"))
    )
    store.write_atomic(report / "manifest.json", store.canonical({"runs": sorted(records)}))
    for name in ("REPORT.md", "index.html"):
        (report / name).write_text(name)
    exchange.export(root, tmp_path / "results")
    (tmp_path / "results" / "README.md").write_text(f"above\n\n{evidence.BEGIN}\n{evidence.END}\n\nbelow\n")
    return tmp_path / "results"


def test_the_table_is_written_between_its_marks_and_holds_every_claim(published):
    assert len(evidence.faults(published)) == 1
    evidence.write(published)
    page = (published / "README.md").read_text()
    assert page.startswith("above\n") and page.endswith("below\n")
    for claim in json.loads((published / "quick" / "claims.json").read_text()):
        assert page.count(f"`{claim['id']}`") == 1
    assert "**reproduced**" in page and "**contradicted**" in page
    assert evidence.faults(published) == [] and evidence.main(["check", str(published)]) == 0
    evidence.write(published)
    assert (published / "README.md").read_text() == page


def test_a_verdict_changed_by_hand_is_noticed(published):
    evidence.write(published)
    page = published / "README.md"
    page.write_text(page.read_text().replace("**contradicted**", "**reproduced**"))
    assert "its table is not what" in evidence.faults(published)[0]
    assert evidence.main(["check", str(published)]) == 1


def test_a_figure_that_no_record_has_is_noticed(published):
    evidence.write(published)
    path = published / "quick" / "runs.csv.xz"
    lines = lzma.decompress(path.read_bytes()).decode().splitlines()
    at = next(i for i, line in enumerate(lines) if ",best_val,ood,em," in line)
    cells = lines[at].split(",")
    cells[lines[0].split(",").index("value")] = "0.123"
    lines[at] = ",".join(cells)
    path.write_bytes(lzma.compress("\n".join([*lines, ""]).encode()))
    assert "runs.csv 0.123" in evidence.faults(published)[0]


def test_a_run_without_its_record_is_noticed(published):
    evidence.write(published)
    path = published / "quick" / exchange.RECORDS
    lines = lzma.decompress(path.read_bytes()).decode().splitlines()
    path.write_bytes(lzma.compress("\n".join([*lines[1:], ""]).encode()))
    assert "1 runs of runs.csv have no record" in evidence.faults(published)[0]


def test_a_page_without_marks_is_one_line(published):
    (published / "README.md").write_text("nothing")
    with pytest.raises(UserError, match="the table has no place"):
        evidence.write(published)


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*/records.jsonl.xz")), ids=lambda file: file.parent.name)
def test_a_suite_has_the_metrics_that_its_kind_is_said_to_have(file):
    with lzma.open(file, "rt") as lines:
        made = json.loads(lines.readline())
    asked = yaml.safe_load(made["config"])["evaluation"]["suites"]
    measured = made["record"]["metrics"]["end"]
    for name in asked.keys() & measured.keys():
        assert set(measured[name]) == set(METRICS[asked[name]["metrics"]]), name
