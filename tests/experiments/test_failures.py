"""What goes wrong in sweeps, done to real runs: processes that die, disks that fill, files that rot, wandb that goes.

All of it takes half an hour; `pytest -m soak -s tests/experiments/test_failures.py` prints the counts. In small, and by
default, the same things are tried in test_run.py, test_workers.py, test_store.py and beside what keeps a cache.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from experiments import store
from experiments.workers import WORKER

pytestmark = [pytest.mark.soak, pytest.mark.xdist_group("failures")]

ROOT = Path(__file__).resolve().parents[2]
TWELVE = ("experiment=peft", "debug=tiny", "hydra.launcher.n_jobs=2")  # six cells of two pairs
ONE = ("debug=tiny", "noise=mixture")  # and the one pair of this
KILLS = 100


def start(root, *arguments, program="experiments.run", **environment):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    arguments = ("-m", f"store.root={root}", *arguments)
    if not any(argument.startswith("tracking") for argument in arguments):
        arguments += ("tracking=none",)
    return subprocess.Popen(
        [sys.executable, "-m", program, *arguments],
        cwd=root.parent, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def finish(process):
    out, err = process.communicate(timeout=600)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def records(root):
    """Run id -> bytes of every record; each must be whole."""
    found = {path.parent.name: path.read_bytes() for path in root.glob("*/record.json")}
    assert all(store.read(root / name) is not None for name in found)
    return found


def measured(root):
    """What was found, without what it took: the records and the verdicts that no minutes enter."""
    runs = {name: json.loads(data) for name, data in records(root).items()}
    for record in runs.values():
        del record["cost"], record["environment"]
    judged = {}
    for path in root.glob("reports/*/claims.json"):
        entries = json.loads(path.read_text())
        judged |= {entry["id"]: entry for entry in entries if not entry["metric"].startswith("cost/")}
    return runs, judged


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """The store of twelve runs that nothing disturbed, and the seconds that it took once its bases were there."""
    root = tmp_path_factory.mktemp("calm") / "runs"
    assert finish(start(root, *TWELVE))[0] == 0
    for path in root.iterdir():
        if path.name != "cache":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    began = time.monotonic()
    assert finish(start(root, *TWELVE))[0] == 0
    assert len(records(root)) == 12
    return root, time.monotonic() - began


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The store of a single undisturbed run."""
    root = tmp_path_factory.mktemp("alone") / "runs"
    assert finish(start(root, *ONE))[0] == 0
    assert len(records(root)) == 1
    return root


# --- processes that die ---------------------------------------------------------------------------------------------


def children(process):
    with suppress(psutil.Error):
        return psutil.Process(process.pid).children()
    return []


def is_worker(child):
    with suppress(psutil.Error):
        return WORKER in " ".join(child.cmdline())
    return False


def strike(process, draw):
    """Kill the sweep, one of its workers, or all of it; says which."""
    workers = [child for child in children(process) if is_worker(child)]
    whom = draw.choice(["the sweep", "all", "a worker"] if workers else ["the sweep", "all"])
    if whom == "a worker":
        with suppress(psutil.Error):  # it may have ended meanwhile, as may those that are looked at
            draw.choice(workers).kill()
    elif whom == "all":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    return whom


def test_kill_9_at_random_moments_loses_and_changes_nothing(calm, tmp_path):
    undisturbed, seconds = calm
    draw, struck, sweeps, starts = random.Random(0), Counter(), 0, 0
    while struck.total() < KILLS:
        root = tmp_path / str(sweeps) / "runs"
        root.mkdir(parents=True)
        if sweeps % 4:  # every fourth has its base models still to build
            shutil.copytree(undisturbed / "cache", root / "cache")
        kept, code = {}, None
        while code != 0:
            process = start(root, *TWELVE)
            starts += 1
            try:
                code = process.wait(timeout=draw.uniform(0, seconds))
            except subprocess.TimeoutExpired:
                struck[strike(process, draw)] += 1
                code = process.wait(timeout=600)
            for pipe in (process.stdout, process.stderr):
                pipe.close()  # not read to its end: a worker that was being given its first task may keep it open
            now = records(root)
            lost = [name for name, data in kept.items() if now.get(name) != data]
            assert lost == []
            kept = now
        assert measured(root) == measured(undisturbed)
        shutil.rmtree(root.parent)
        sweeps += 1
    print(f"\nkilled {dict(struck)} in {starts} starts of {sweeps} sweeps of 12 runs: 0 lost, 0 torn, 0 differing")


def test_two_launchers_do_no_run_twice(tmp_path):
    arms = ("experiment=quickstart", "arm=full,random", "experiment.pairs=6", "hydra.launcher.n_jobs=2")
    for trial in range(10):
        root, log = tmp_path / str(trial) / "runs", tmp_path / f"{trial}.log"
        root.parent.mkdir()
        environment = {"FAKE_PROCESS": "1", "FAKE_SECONDS": "0.3", "FAKE_LOG": str(log)}
        both = [start(root, *arms, program="tests.experiments.fakes", **environment) for _ in range(2)]
        for process in both:
            code, out, err = finish(process)
            assert (code, err) == (0, ""), out
        begun = Counter(log.read_text().split())
        assert set(begun.values()) == {1} and len(begun) == 12 == len(records(root))
    print("\n2 launchers x 10 sweeps of 12 runs: 0 runs done twice, 0 torn")


def test_a_run_that_asks_for_too_much_memory_fails_alone(tmp_path):
    arms = ("experiment=quickstart", "arm=full,random", "experiment.pairs=3", "hydra.launcher.n_jobs=2")
    environment = {"FAKE_PROCESS": "1", "FAKE_HUNGER": "random:1"}
    code, _, err = finish(start(tmp_path / "runs", *arms, program="tests.experiments.fakes", **environment))
    assert code == 1
    assert "MemoryError" in err and "1 of 6 runs missing" in err
    assert len(records(tmp_path / "runs")) == 5


# --- disks that fill ------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path):
    """A disk of 64 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(place)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk, leave):
    """Take all but `leave` bytes."""
    with (disk / "filler").open("wb") as file:
        file.write(bytes(shutil.disk_usage(disk).free - leave))
    assert shutil.disk_usage(disk).free <= leave


# what has no room left, bytes that are left, more arguments, whether base and reward model are there already
FULL = {
    "a base model": (200_000, (), False),
    "a checkpoint": (600_000, ("survival.checkpoint_minutes=1.0e-6",), True),
    "a record": (12_000, (), True),
}


@pytest.mark.parametrize("what", FULL)
def test_a_full_disk_keeps_what_is_there_and_the_same_command_goes_on(alone, disk, what):
    leave, more, prepared = FULL[what]
    root = disk / "runs"
    root.mkdir()
    if prepared:
        shutil.copytree(alone / "cache", root / "cache")
    other = root / "0123456789abcdef"
    store.open_run(other, {"arm": "full"})
    store.finish(other, {"arm": "full"})
    fill(disk, leave)
    code, out, err = finish(start(root, *ONE, *more, "survival.retries=0"))
    assert code in (1, 2), out + err
    assert "no space left on device" in (out + err).lower()
    assert list(records(root)) == [other.name]
    (disk / "filler").unlink()
    assert finish(start(root, *ONE, *more))[0] == 0
    shutil.rmtree(other)
    assert measured(root) == measured(alone)
    print(f"\nno room for {what}: 0 lost, 0 torn, 0 differing")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a disk")
def test_a_store_that_cannot_be_written_is_said_before_anything_runs(disk):
    root = disk / "runs"
    root.mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "experiments.run", *ONE, f"store.root={root}", "tracking=none"]
    done = subprocess.run(command, cwd=disk.parent, env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: store.root={root}: read-only file system; ")
    assert len(done.stderr.splitlines()) == 1


# --- files that rot -------------------------------------------------------------------------------------------------


def flip(path):
    """Change some bytes in the middle of a file."""
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(255 - byte for byte in data[middle : middle + 64])
    path.write_bytes(data)


def test_what_rots_is_noticed_set_aside_and_made_again(calm, tmp_path):
    root = tmp_path / "runs"
    shutil.copytree(calm[0], root)
    weights = sorted(root.glob("cache/**/model.safetensors"))
    rotten = sorted(root.glob("*/record.json"))[:3]
    for path in (*weights, *rotten):
        flip(path)
    for path in sorted(root.glob("*/record.json"))[3:6]:
        shutil.rmtree(path.parent)  # so that damaged base models are asked for
    code, out, err = finish(start(root, *TWELVE))
    assert code == 0, out + err
    assert out.count("is not what was written") == len(rotten)
    assert measured(root) == measured(calm[0])
    print(f"\n{len(weights)} weights and {len(rotten)} records changed: all noticed and made again, 0 differing")


# --- wandb that goes ------------------------------------------------------------------------------------------------


def whole(root):
    """Every run is recorded and its curve is JSON to the last line."""
    assert len(records(root)) == 1
    (path,) = root.glob("*/metrics.jsonl")
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_wandbs_process_is_killed(alone, tmp_path):
    root = tmp_path / "runs"
    shutil.copytree(alone / "cache", root / "cache")
    process = start(root, *ONE, "tracking=offline")
    killed = 0
    while process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            try:
                if "wandb" in child.name():
                    child.kill()
                    killed += 1
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.05)
    code, out, err = finish(process)
    assert killed, "wandb had no process"
    assert code == 0, out + err
    whole(root)
    assert measured(root) == measured(alone)


def test_wandb_online_without_a_network(alone, tmp_path):
    root = tmp_path / "runs"
    shutil.copytree(alone / "cache", root / "cache")
    nowhere = {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    code, out, err = finish(start(root, *ONE, "tracking=online", **nowhere))
    assert code == 0, out + err
    assert "offline instead" in err
    whole(root)
    assert measured(root) == measured(alone)
