"""Runs leave a store and arrive in another as they were."""

import json
import lzma

import pytest
from synthetic import quickstart

from experiments import UserError, exchange, store
from experiments import table as tables


@pytest.fixture
def root(tmp_path):
    """A store with the runs of two pairs, of which the first is reported."""
    cells, records = quickstart(pairs=2)
    for run_id, record in records.items():
        folder = store.open_run(store.run_folder(tmp_path / "runs", run_id), {"arm": record["arm"], "api_key": "x"})
        store.finish(folder, record)
    report = tmp_path / "runs" / "reports" / "quick"
    (report / "figures").mkdir(parents=True)
    (report / "figures" / "curves.svg").write_text("<svg/>")
    first = [cell for cell in cells if cell.seeds["pair"] == 0]
    for name in ("REPORT.md", "index.html", "claims.json"):
        (report / name).write_text(name)
    runs = sorted(cell.run_id for cell in first)
    (report / "manifest.json").write_text(json.dumps({"runs": runs}))
    tables.write(report / "runs.csv", tables.runs_table(first, records, tables.Best("validation", "em", "max")))
    return tmp_path / "runs"


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_store_arrives_as_it_left(root, tmp_path):
    assert exchange.export(root, tmp_path / "out") == {"quick": 9, "others": 9}
    assert not list((tmp_path / "out").rglob("index.html"))  # which shows rows of the data
    assert exchange.take_in(tmp_path / "new", tmp_path / "out") == (18, 0)
    assert store.finished(tmp_path / "new") == store.finished(root)
    for run_id in store.finished(root):
        for name in ("record.json", "config.yaml"):
            assert (tmp_path / "new" / run_id / name).read_bytes() == (root / run_id / name).read_bytes()
    assert exchange.take_in(tmp_path / "new", tmp_path / "out") == (0, 18)


def test_what_is_there_is_not_written_over(root, tmp_path):
    exchange.export(root, tmp_path / "out")
    run_id = min(store.finished(root))
    record = {**store.read(root / run_id), "arm": "mine"}
    store.finish(root / run_id, record)
    exchange.take_in(root, tmp_path / "out")
    assert store.read(root / run_id)["arm"] == "mine"


def test_two_exports_are_equal_and_hold_no_secret(root, tmp_path):
    exchange.export(root, tmp_path / "one")
    exchange.export(root, tmp_path / "two")
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert "***" in lzma.decompress((tmp_path / "one" / "quick" / exchange.RECORDS).read_bytes()).decode()


def test_the_packed_table_reads_as_the_plain_one(root, tmp_path):
    exchange.export(root, tmp_path / "out", ["quick"])
    assert not (tmp_path / "out" / exchange.OTHERS).exists()
    packed = tables.read(tmp_path / "out" / "quick" / "runs.csv")
    assert packed.equals(tables.read(root / "reports" / "quick" / "runs.csv"))


def test_one_changed_figure_is_noticed(root, tmp_path):
    exchange.export(root, tmp_path / "out")
    path = tmp_path / "out" / "quick" / exchange.RECORDS
    text = lzma.decompress(path.read_bytes()).decode()
    path.write_bytes(lzma.compress(text.replace('"train_s": 9.6', '"train_s": 9.5').encode()))
    with pytest.raises(UserError, match="is not what was exported"):
        exchange.take_in(tmp_path / "new", tmp_path / "out")


@pytest.mark.parametrize("data", [b"", b"not packed", lzma.compress(b"{")])
def test_a_broken_file_is_named(root, tmp_path, data):
    exchange.export(root, tmp_path / "out")
    (tmp_path / "out" / exchange.OTHERS).write_bytes(data)
    with pytest.raises(UserError, match=r"others\.jsonl\.xz: not a whole export"):
        exchange.take_in(tmp_path / "new", tmp_path / "out")


def test_mistakes_are_one_line(root, tmp_path, capsys):
    with pytest.raises(UserError, match=r"nothing: no such report .*there are: quick"):
        exchange.export(root, tmp_path / "out", ["nothing"])
    with pytest.raises(UserError, match="holds no records"):
        exchange.take_in(root, tmp_path / "empty")
    assert store.main([]) == 2
    assert "export FOLDER" in capsys.readouterr().out


def test_the_command_line(root, tmp_path, capsys):
    assert store.main(["export", str(tmp_path / "out"), f"store.root={root}"]) == 0
    assert store.main(["import", str(tmp_path / "out"), f"store.root={tmp_path / 'new'}"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "quick: 9 runs", "others: 9 runs", f"18 runs taken into {tmp_path / 'new'}, 0 were there already",
    ]  # fmt: skip
