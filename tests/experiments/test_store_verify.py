"""A record that is not what its run wrote is named, never believed, and made again."""

import hashlib
import json
import os
import shutil

import pytest

from experiments import exchange, store, store_verify
from experiments.config import RESULTS_VERSION, config_hash, run_id, validate, versions
from experiments.run import execute
from tests.experiments.runs import run as do_run


@pytest.fixture
def done(make, root):
    """The folder of a finished run, as it was made; spoilt copies of it go into a store of their own."""
    _, folder = do_run(make("arm=full"))
    return folder


@pytest.fixture
def copy(done, tmp_path):
    return shutil.copytree(done, tmp_path / "runs" / done.name)


def verified(folder, capsys, code):
    assert store.main(["verify", f"store.root={folder.parent}"]) == code
    return capsys.readouterr().out


def test_a_sound_run_is_whole_and_its_hashes_are_those_of_its_files(copy, capsys):
    assert "1 records whole (1 by their hash, 0 no hash), 0 broken" in verified(copy, capsys, 0)
    lines = (copy / store.SUMS).read_text().splitlines()
    kept = {name: digest for digest, name in (line.split("  ") for line in lines)}
    assert set(kept) == {*store.SUMMED, "record.json"} - {"outputs.jsonl", "pairwise.jsonl"}
    for name, digest in kept.items():
        assert hashlib.sha256((copy / name).read_bytes()).hexdigest() == digest


def test_a_record_from_before_hashes_is_whole_without(copy, capsys):
    (copy / store.SUMS).unlink()
    assert "1 records whole (0 by their hash, 1 no hash), 0 broken" in verified(copy, capsys, 0)


def spoil_figure(folder):
    text = (folder / "record.json").read_text()
    (folder / "record.json").write_text(text.replace('"status": "done"', '"status": "Done"'))


def cut(name):
    # a third: half of two lines of one length would be a whole line
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size // 3)


def edit(**changes):
    def spoil(folder):
        record = json.loads((folder / "record.json").read_text())
        (folder / "record.json").write_text(store.canonical({**record, **changes}))

    return spoil


def another_config(folder):
    path = folder / "config.yaml"
    path.write_text(path.read_text().replace("batch_size: ", "batch_size: 1"))


SPOILT = [
    ("hashed", spoil_figure, "record.json is not what was written"),
    ("hashed", cut("record.json"), "record.json is not what was written"),
    ("hashed", cut("items.parquet"), "items.parquet is not what was written"),
    ("hashed", cut("metrics.jsonl"), "metrics.jsonl is not what was written"),
    ("hashed", another_config, "config.yaml is not what was written"),
    ("hashed", lambda folder: (folder / "losses.csv").unlink(), "losses.csv is gone"),
    ("bare", cut("record.json"), "record.json is not whole"),
    ("bare", lambda folder: (folder / "record.json").write_bytes(b""), "record.json is not whole"),
    ("bare", lambda folder: (folder / "record.json").write_bytes(b"\xff\x00"), "record.json is not whole"),
    ("bare", cut("items.parquet"), "items.parquet cannot be read"),
    ("bare", cut("metrics.jsonl"), "metrics.jsonl cannot be read"),
    ("bare", edit(metrics=None), "record.json: its metrics is no dict"),
    ("bare", edit(run_id="0" * 16), "record.json is that of run 0000000000000000"),
    ("bare", edit(config_hash="0" * 16), "config.yaml is that of another run"),
    ("bare", another_config, "config.yaml is that of another run"),
    ("bare", lambda folder: (folder / "config.yaml").unlink(), "config.yaml is gone"),
]


@pytest.mark.parametrize(("kind", "spoil", "reason"), SPOILT, ids=[f"{k}: {r[:60]}" for k, _, r in SPOILT])
def test_what_is_broken_is_named_with_its_reason(copy, capsys, kind, spoil, reason):
    if kind == "bare":
        (copy / store.SUMS).unlink()
    spoil(copy)
    text = verified(copy, capsys, 1)
    assert f"{copy.name}: " in text and reason in text and "0 records whole" in text and "1 broken" in text


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (edit(code_version={"curate": 1, "train": 1, "experiments": 1}), "made by another version of the code"),
        (edit(code_version=dict(RESULTS_VERSION)), "made by another version of the code (world 1, decoder 1)"),
        (lambda folder: (folder / "config.yaml").write_text("arm: full\n"), "its config is none of this version's"),
    ],
)
def test_an_id_that_cannot_be_checked_is_said_and_not_held_against_the_run(copy, capsys, spoil, why):
    (copy / store.SUMS).unlink()
    spoil(copy)
    if "another version" in why:
        another_config(copy)
    text = verified(copy, capsys, 0)
    assert f"id not checked: {why}" in text and "1 records whole" in text


def test_a_config_whose_data_is_elsewhere_cannot_be_checked(tmp_path, composed):
    data = tmp_path / "rows.jsonl"
    data.write_text('{"instruction": "a", "output": "b"}\n')
    config = validate(composed("data=alpaca", f"data.path={data}"))
    record = {key: kind() for key, kind in store_verify.KEYS.items()}
    record |= {"run_id": run_id(config), "config_hash": config_hash(config), "code_version": versions(config)}
    folder = store.open_run(tmp_path / "runs" / run_id(config), config.model_dump(mode="json"))
    store.finish(folder, record)
    assert store_verify.id_fault(folder) == (None, None)
    data.write_text("other\n")
    fault, why = store_verify.id_fault(folder)
    assert fault is None and why and "rows.jsonl" in why


# --- a damaged record is not believed -------------------------------------------------------------------------------


def test_a_damaged_record_is_none_is_set_aside_and_done_again(make, tmp_path):
    config = make("arm=full")
    config = config.model_copy(update={"store": config.store.model_copy(update={"root": str(tmp_path)})})
    name = run_id(config)
    folder = tmp_path / name
    assert execute(config)["error"] is None
    sound = store.read(folder)
    spoil_figure(folder)
    spoilt = (folder / "record.json").read_bytes()
    assert store.read(folder) is None and store.finished(tmp_path) == {name}
    found = store.set_aside(tmp_path, [name, "0" * 16])
    assert list(found) == [name] and "SHA-256" in found[name]
    assert store.finished(tmp_path) == set()
    assert store.set_aside(tmp_path, [name]) == {}
    assert execute(config)["error"] is None
    assert (folder / store.CORRUPT).read_bytes() == spoilt
    again = store.read(folder)
    assert again["metrics"] == sound["metrics"]
    assert store.set_aside(tmp_path, [name]) == {}


def test_a_run_that_is_being_done_is_not_set_aside(copy):
    spoil_figure(copy)
    with store.lock(copy):
        assert store.set_aside(copy.parent, [copy.name]) == {}
    assert list(store.set_aside(copy.parent, [copy.name])) == [copy.name]


def test_importing_mends_a_damaged_record(copy, tmp_path):
    exchange.export(copy.parent, tmp_path / "out")
    spoil_figure(copy)
    assert exchange.take_in(copy.parent, tmp_path / "out") == (1, 0)
    assert store.read(copy) is not None
