"""Every sabotage of the list fits the code and, when it is done (marker `soak`), is caught by its named test."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
SABOTAGES = yaml.safe_load((ROOT / "tests" / "sabotages.yaml").read_text())
NAMES = [s["what"] for s in SABOTAGES]


def test_there_are_enough():
    assert len(SABOTAGES) >= 15 and len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=NAMES)
def test_it_fits_the_code(sabotage):
    assert (ROOT / sabotage["file"]).read_text().count(sabotage["find"]) == 1
    assert sabotage["replace"] != sabotage["find"]
    file, _, name = sabotage["test"].partition("::")
    assert f"def {name}(" in (ROOT / file).read_text()


def pytest_of(folder: Path, test: str) -> int:
    """Exit code of one test in a copy of the code; the copy comes before any installed package."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", test]
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=300).returncode


@pytest.fixture
def copy(tmp_path):
    for name in ("conf", "curate", "experiments", "tests", "train"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.soak
@pytest.mark.parametrize("sabotage", SABOTAGES, ids=NAMES)
def test_it_is_caught(sabotage, copy):
    assert pytest_of(copy, sabotage["test"]) == 0, "the test does not pass on sound code"
    path = copy / sabotage["file"]
    path.write_text(path.read_text().replace(sabotage["find"], sabotage["replace"]))
    assert pytest_of(copy, sabotage["test"]) == 1
