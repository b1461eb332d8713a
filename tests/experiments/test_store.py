"""The store keeps what is finished, through crashes, and nothing that is half done."""

import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml

from experiments import UserError, store


def test_canonical_text_depends_on_values_alone():
    one = store.canonical({"b": np.float64(0.1), "a": (1, np.int64(2)), "c": math.nan})
    two = store.canonical({"c": math.inf, "a": [1, 2], "b": 0.1})
    assert one == two
    assert json.loads(one) == {"a": [1, 2], "b": 0.1, "c": None}
    assert store.canonical(0.1 + 0.2) == "0.30000000000000004\n"


def test_a_run_is_done_only_with_its_record(tmp_path):
    folder = store.open_run(store.run_folder(tmp_path, "abc"), {"arm": "full"})
    with store.MetricsLog(folder) as log:
        log.write(tokens=10, step=1, epoch=0.5, suite="ood", metric="em", value=0.25)
    assert store.read(folder) is None
    assert store.finished(tmp_path) == set()
    store.finish(folder, {"run_id": "abc", "metrics": {}})
    assert store.finished(tmp_path) == {"abc"}
    assert store.read(folder) == {"run_id": "abc", "metrics": {}}
    assert store.records(tmp_path, ["abc", "missing"]) == {"abc": {"run_id": "abc", "metrics": {}}}
    assert yaml.safe_load((folder / "config.yaml").read_text()) == {"arm": "full"}


def test_folders_that_are_no_runs_are_not_counted(tmp_path):
    for name in store.RESERVED:
        store.finish(tmp_path / name, {})
    assert store.finished(tmp_path) == set()
    assert store.finished(tmp_path / "not there") == set()


def test_opening_again_clears_the_earlier_attempt(tmp_path):
    folder = store.open_run(tmp_path / "abc", {"arm": "full"})
    (folder / "model").mkdir()
    (folder / "model" / "half").write_text("x")
    with store.MetricsLog(folder) as log:
        log.write(tokens=1, step=1, epoch=1.0, suite="ood", metric="em", value=0.0)
    store.fail(folder, "abc", "data.path=x: no such file", step=3)
    assert store.failure(folder) == {"run_id": "abc", "error": "data.path=x: no such file", "step": 3, "trace": None}
    store.open_run(folder, {"arm": "full"})
    assert sorted(p.name for p in folder.iterdir()) == ["config.yaml"]


def test_metrics_are_on_disk_at_once_and_a_cut_line_is_left_out(tmp_path):
    folder = store.open_run(tmp_path / "abc", {})
    log = store.MetricsLog(folder)
    log.write(tokens=7, step=2, epoch=0.1, suite="ood", metric="nll", value=math.nan)
    row = {"tokens": 7, "step": 2, "epoch": 0.1, "suite": "ood", "metric": "nll", "value": None}
    assert store.read_metrics(folder) == [row]
    log.close()
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"tokens": 9, "st')
    assert store.read_metrics(folder) == [row]


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "record.json"
    store.write_atomic(path, "old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        store.write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


@pytest.mark.parametrize(
    "key", ["key", "api_key", "WANDB_API_KEY", "apiKey", "hf_token", "token", "password", "client_secret", "key_file"]
)
def test_secrets_are_left_out(key):
    assert store.redact({"judge": [{key: "s3cret"}]}) == {"judge": [{key: "***"}]}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tokens", 5),
        ("max_tokens", "5"),
        ("keywords", "a"),
        ("tokenizer", "x"),
        ("token_budget", 256),
        ("monkey", "b"),
        ("key", None),
    ],
)
def test_what_only_looks_like_a_secret_is_kept(key, value):
    assert store.redact({key: value}) == {key: value}


def test_a_store_that_is_not_writable_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"store\.root=.*file/runs: .*; .*store\.root=FOLDER"):
        store.check_writable(tmp_path / "file" / "runs")
    store.check_writable(tmp_path / "new" / "runs")
    assert list((tmp_path / "new" / "runs").iterdir()) == []


def test_a_cached_folder_is_there_whole_or_not_at_all(tmp_path):
    target = tmp_path / "models" / "abc"

    def breaks(part):
        (part / "checkpoint").write_text("step 7")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        store.cached_folder(target, breaks)
    assert not target.exists()
    calls = []

    def goes_on(part):
        calls.append((part / "checkpoint").read_text())
        (part / "weights").write_text("w")

    assert store.cached_folder(target, goes_on) == target
    store.cached_folder(target, goes_on)
    assert calls == ["step 7"]  # the checkpoint was found, and what is built is not built again
    assert (target / "weights").read_text() == "w"


@pytest.mark.parametrize("harm", [lambda file: file.write_text("x"), lambda file: file.unlink()])
def test_a_cached_folder_that_is_damaged_is_set_aside_and_built_again(tmp_path, capfd, harm):
    target, calls = tmp_path / "models" / "abc", []

    def build(part):
        calls.append(part)
        (part / "deep").mkdir()
        (part / "deep" / "weights").write_text("w")

    store.cached_folder(target, build)
    store.cached_folder(target, build)
    assert len(calls) == 1
    harm(target / "deep" / "weights")
    store._first_damaged.cache_clear()  # each process looks once
    assert (store.cached_folder(target, build) / "deep" / "weights").read_text() == "w"
    assert len(calls) == 2
    assert "deep/weights is not what was built; set aside as abc.corrupt, built again" in capfd.readouterr().err
    assert (tmp_path / "models" / "abc.corrupt" / store.SUMS).exists()
    store.cached_folder(target, build)
    assert len(calls) == 2


def _build_slowly(path, seen):
    def build(part):
        seen.append(os.getpid())
        time.sleep(0.3)
        (part / "weights").write_text("w")

    store.cached_folder(path, build)


def test_of_several_processes_one_builds(tmp_path):
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        seen = manager.list()
        workers = [context.Process(target=_build_slowly, args=(tmp_path / "abc", seen)) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert len(seen) == 1
    assert [worker.exitcode for worker in workers] == [0, 0, 0]


def test_a_killed_process_leaves_no_lock(tmp_path):
    code = f"""
import time
from pathlib import Path
from experiments import store
with store.lock(Path({str(tmp_path / "abc")!r})):
    print("locked", flush=True)
    time.sleep(60)
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with store.lock(tmp_path / "abc").acquire(timeout=5):
        pass
