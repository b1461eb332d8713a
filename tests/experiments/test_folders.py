"""What the folders of runs say in a report: selections, rows, answers, flips; and what is published of it."""

import lzma
from pathlib import Path

import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest

from experiments import account, exchange, report, store
from experiments import table as tables
from experiments.report import content, folders, texts
from tests.experiments.synthetic import cell, record
from tests.experiments.test_report import COMMAND, EVALUATION, Page

pytestmark = [pytest.mark.xdist_group("report"), pytest.mark.usefixtures("few_drawings")]

NASTY = '</script><script>alert(1)</script><img src=x onerror=alert(2)> "q" \u202eabc'
SECRET = "a row that belongs to somebody"
OOD = ("entity",)
RIGHT = {"full": [1, 1, 0, 0], "filtered": [1, 0, 1, 1]}  # of the questions at the best point


def fill(root: Path, data: str, arms=("full", "filtered"), pairs=2, note=SECRET):
    """A store with finished runs, everything beside their records as runs write it."""
    cells, records = [], {}
    for pair in range(pairs):
        for arm in arms:
            c = cell(arm, pair)
            cells.append(c)
            made = record(c, [0.1, 0.2, 0.4, 0.3 + 0.01 * pair])  # best at step 192
            records[c.run_id] = made
            folder = store.run_folder(root, c.run_id)
            suites = {"entity": {"world": "entity", "ood": True}}
            config = {"arm": arm, "data": {"name": data}, "seed": {"world": 0}}
            store.open_run(folder, config | {"evaluation": {"items": 300, "suites": suites}})
            row = {"instruction": NASTY, "input": "", "output": note, "noise_kind": "near_miss"}
            kinds = {"clean": 50, "near_miss": 50}
            kept = {"clean": 20, "near_miss": 10 + 10 * pair}
            account.write(
                folder / account.SELECTION,
                {"pool": {"rows": 100, "response_words": 4.0, "kinds": kinds},
                 "subset": {"rows": 30, "response_words": 6.0, "kinds": kept}, "kept": [row], "dropped": [row]},
            )  # fmt: skip
            said = {"suite": "entity", "item": 0, "prompt": "what?", "gold": "gold", "answer": NASTY}
            account.write(folder / account.ANSWERS, [said])
            items = [
                {"point": point, "suite": suite, "item": i, "em": float(right if point == "step:192" else 0)}
                for point in ("step:192", "step:384")
                for suite in ("entity", "id")
                for i, right in enumerate(RIGHT[arm])
            ]
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(items), folder / folders.ITEMS)
            store.finish(folder, made)
    return cells, records


def build(root, cells, records, name="quick"):
    out = root / "reports" / name
    options = {"evaluation": EVALUATION, "ood": OOD, "root": root}
    report.build(name, "A title", cells, records, [], out, COMMAND, "x: 1", **options)
    return out


@pytest.fixture
def embedded(tmp_path):
    root = tmp_path / "runs"
    made = fill(root, "microworld")
    return root, *made


def looked(root, cells, records):
    table = tables.runs_table(cells, records, tables.Best("validation", "em", "max"))
    arms = content.arms(table, EVALUATION)
    return folders.look(root, table, arms, [], records, OOD)


def test_selections_are_means_over_runs(embedded):
    found = looked(*embedded).selections
    assert [one.label for one in found] == ["full", "filtered"]
    assert (found[0].runs, found[0].rows, found[0].words) == (2, 30, 6.0)
    assert found[0].kinds == {"clean": (50, 20), "near_miss": (50, 15)}
    columns, rows = texts.selection_table(found)
    assert dict(zip(columns, rows[0], strict=True))["of near_miss rows"] == "30.0 %"


def test_flipped_questions_are_counted_at_the_best_point_of_ood_suites(embedded):
    (found,) = looked(*embedded).flips
    assert (found.one, found.other, found.pairs) == ("filtered", "full", 2)
    assert (found.both, found.only_one, found.only_other, found.neither) == (2, 4, 2, 0)
    assert [(flip.item, flip.right, flip.other_right) for flip in found.gained] == [(3, 2, 0), (2, 2, 0)]
    assert [flip.item for flip in found.lost] == [1]
    assert found.lost[0].question.endswith((".", "?")) and found.lost[0].gold  # the world's own words


def test_the_page_shows_it_and_nothing_of_it_is_markup(embedded):
    root, cells, records = embedded
    page = (build(root, cells, records) / "index.html").read_text()
    read = Page(page)
    assert [tag for tag, _ in read.tags if tag in ("script", "img")] == ["script"]
    assert NASTY.replace("\u202e", "[U+202E]") in read.text and "\u202e" not in page
    assert "right in 2 of 2" in read.text and "What each selection did" in read.text


def test_runs_without_any_of_it_say_that_it_is_not_recorded(tmp_path):
    root = tmp_path / "runs"
    cells, records = fill(root, "microworld")
    for path in [*root.rglob("*.parquet"), *root.rglob(account.SELECTION)]:
        path.unlink()
    page = (build(root, cells, records) / "index.html").read_text()
    assert "Not recorded" in page and "Which questions flipped" not in page
    assert looked(None, cells, records) == folders.Folders()


def test_broken_results_by_question_are_left_out(embedded):
    root, cells, _ = embedded
    first = cells[0].run_id
    (root / first / folders.ITEMS).write_bytes(b"PAR1 no")
    assert looked(*embedded).flips[0].pairs == 1
    table = pd.DataFrame({"point": ["step:192"], "suite": ["entity"], "item": [0], "nats": [1.0]})
    for c in cells:
        table.to_parquet(root / c.run_id / folders.ITEMS)
    assert looked(*embedded).flips == []


@pytest.mark.parametrize("data", ["microworld", "alpaca"])
def test_an_export_has_no_row_of_the_data(tmp_path, data):
    root = tmp_path / "runs"
    out = build(root, *fill(root, data))
    page = (out / "index.html").read_text()
    assert SECRET in page and "What each selection did" in page
    exchange.export(root, tmp_path / "results")
    files = [path for path in (tmp_path / "results").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".md", ".json", ".xz", ".svg", ".csv"}
    packed = {".xz": lzma.decompress}
    assert not any(SECRET.encode() in packed.get(path.suffix, bytes)(path.read_bytes()) for path in files)
