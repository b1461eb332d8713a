"""`python -m curate` from outside: every row accounted for, nothing left behind, one line for a mistake."""

import csv
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from curate.__main__ import main

ROWS = [{"instruction": f"q{at}", "input": "", "output": " ".join(["word"] * (at + 1))} for at in range(20)]


def run(folder: Path, *overrides: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "curate", *overrides],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
        timeout=300,
    )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS) + '{"instruction": "no output"}\n')
    return path


def test_top_k_by_length(tmp_path: Path, source: Path) -> None:
    ended = run(
        tmp_path, "data.path=in.jsonl", "scorer=length", "selection=top_k", "selection.k=5", "out.path=to/out.json",
        "out.rejected=rejected.csv", "data.max_bad_share=0.1",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "21 rows in = 5 kept + 15 rejected + 1 set aside (see to/out.json.set_aside.jsonl)"
    kept = json.loads((tmp_path / "to" / "out.json").read_text())
    assert [row["instruction"] for row in kept] == ["q15", "q16", "q17", "q18", "q19"]
    assert [row["score"] for row in kept] == [16, 17, 18, 19, 20]
    with (tmp_path / "rejected.csv").open(newline="") as file:
        assert [row["instruction"] for row in csv.DictReader(file)] == [f"q{at}" for at in range(15)]
    [bad] = [json.loads(line) for line in (tmp_path / "to" / "out.json.set_aside.jsonl").read_text().splitlines()]
    assert bad == {"line": 21, "reason": "output is missing (fields here: instruction)"}
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "in.jsonl", "out.json", "out.json.set_aside.jsonl", "rejected.csv", "to",
    ]  # fmt: skip


def test_threshold_by_reward_model(tmp_path: Path, reward_model_folder: Path) -> None:
    rows = [
        {"prompt": "explain backpropagation .", "completion": "the error flows back through the layers"},
        {"prompt": "asdfasdfasdf", "completion": "i'm sorry , but i don't understand your question ."},
    ]
    (tmp_path / "in.json").write_text(json.dumps(rows))
    overrides = [
        "data.path=in.json",
        "scorer=reward_model",
        f"scorer.model={reward_model_folder}",
        "out.path=out.jsonl",
    ]
    ended = run(tmp_path, *overrides, "selection=threshold", "selection.threshold=1.5")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "2 rows in = 1 kept + 1 rejected + 0 set aside\n"
    assert "scoring: 2 of 2" in ended.stderr
    assert [json.loads(line)["instruction"] for line in (tmp_path / "out.jsonl").open()] == [rows[0]["prompt"]]
    again = run(tmp_path, *overrides, "selection=top_k", "selection.k=1")
    assert again.returncode == 0
    assert "scoring" not in again.stderr  # the scores were kept
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.json", "out.jsonl", "runs"]


def test_what_keeps_everything_is_said(tmp_path: Path, source: Path) -> None:
    ended = run(tmp_path, "data.path=in.jsonl", "selection.threshold=0", "out.path=out.csv", "data.max_bad_share=1")
    assert ended.returncode == 0
    assert "warning: selection.kind=threshold keeps all 20 rows" in ended.stderr


GOOD = {"data.path": "in.jsonl", "out.path": "out.json", "selection.threshold": "3", "data.max_bad_share": "0.5"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.path": None}, "data.path=null: which file?"),
        ({"data.path": "none.json"}, "data.path=none.json: no such file"),
        ({"data.max_bad_share": "0.01"}, "data.max_bad_share=0.01: 1 of 21 rows"),
        ({"out.path": None}, "out.path=null: where should the kept rows go?"),
        ({"out.path": "out.txt"}, "out.path=out.txt: unknown kind of file '.txt'"),
        ({"out.path": "in.jsonl"}, "out.path=in.jsonl: is data.path too"),
        ({"out.path": "in.jsonl/x.json"}, "out.path=in.jsonl/x.json: "),
        ({"out.rejected": "out.json"}, "out.rejected=out.json: is out.path too"),
        ({"selection.threshold": "1e9"}, "selection.threshold=1e+09: keeps none of 20 rows (the best score is 20)"),
        ({"selection.threshold": "high"}, "selection.threshold=high: should be a valid number"),
        ({"selection": "top_k"}, "selection.k=null: how many rows?"),
        ({"selection": "top_k", "selection.k": "-3"}, "selection.k=-3: should be greater than or equal to 1"),
        ({"selection": "top_k", "selection.k": "21"}, "selection.k=21: the pool has 20 rows"),
        ({"scorer": "reward_model"}, "scorer.model=null: which reward model?"),
        ({"scorer": "reward_model", "scorer.model": "/no/such"}, "scorer.model=/no/such: no such folder"),
        ({"scorer": "guess"}, "Could not find 'scorer/guess'"),
        ({"out.layout": "html"}, "out.layout=html: choose one of rows, messages"),
        ({"out.layout": "trl", "out.path": "x.csv"}, "out.layout=trl: a CSV file cannot hold turns"),
        ({"score.import": "none.csv"}, "score.import=none.csv: no such file"),
        ({"dedup.near": "2"}, "dedup.near=2: should be less than or equal to 1"),
        ({"noise": "mixture", "noise.rate": "2"}, "noise.rate=2: should be less"),
        ({"scorer._target_": "nothing"}, "scorer._target_=nothing: which function?"),
        ({"selction.k": "3"}, "Could not override 'selction.k'. There is no such key"),
        ({"data.row": "3"}, "Could not override 'data.row'. There is no such key"),
        ({"+data.row": "3"}, "data.row=3: there is no such key"),
        ({"seed": "-1"}, "seed=-1: choose a whole number"),
        ({"data.rows": "0"}, "data.rows=0: should be greater than or equal to 1"),
        ({"seed": "true"}, "seed=True: choose a whole number"),
        ({"shards": "true"}, "shards=True: choose a whole number"),
        ({"scorer": "5"}, "scorer=5: no such option; use one of "),
        ({"noise": "null"}, "noise=null: no such option; use one of "),
        ({"out": "3"}, "out=3: is no value but has keys"),
        ({"score": "null"}, "score=null: is no value but has keys"),
        ({"cache": ""}, "cache=: is empty; name a path"),
        ({"score.import": ""}, "score.import=: is empty; name a path"),
        ({"out.audit": "no"}, "out.audit=no: choose true or false"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    tmp_path: Path,
    source: Path,
    changes: dict[str, str | None],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    overrides = [f"{key}={value}" for key, value in {**GOOD, **changes}.items() if value is not None]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["curate", *overrides])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # main sets its own
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # as main does, here for this test only
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert message in said.err
    assert said.err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} <= {"in.jsonl", "out.json.set_aside.jsonl"}


def test_keys_are_checked_before_any_file_is_read(tmp_path: Path) -> None:
    ended = run(tmp_path, "data.path=none.json", "out.path=out.json", "selection=top_k", "selection.k=0")
    assert ended.returncode == 2
    assert ended.stderr == "error: selection.k=0: should be greater than or equal to 1\n"
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line(tmp_path: Path, source: Path) -> None:
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500));"
    code += "from curate.__main__ import main; main()"
    overrides = [f"{key}={value}" for key, value in GOOD.items()]
    ended = subprocess.run(
        [sys.executable, "-c", code, *overrides], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 2
    assert (
        ended.stderr == "error: out.path=out.json: cannot write it (file too large); free space or name another place\n"
    )
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_other_formats(tmp_path: Path, source: Path, suffix: str) -> None:
    assert (
        run(tmp_path, *[f"{key}={value}" for key, value in {**GOOD, "out.path": f"a.{suffix}"}.items()]).returncode == 0
    )
    ended = run(tmp_path, f"data.path=a.{suffix}", "selection=top_k", "selection.k=2", "out.path=b.jsonl")
    assert ended.stdout == "18 rows in = 2 kept + 16 rejected + 0 set aside\n"
    assert [json.loads(line)["instruction"] for line in (tmp_path / "b.jsonl").open()] == ["q18", "q19"]


def test_every_row_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Near-duplicates, what the selection dropped and what it kept, each with its own reason, whatever the chunks."""
    words = [f"word{at}" for at in range(40)]
    rows = [{"instruction": f"q{at}", "output": " ".join(words[: 2 * at + 1])} for at in range(12)]
    rows[7:7] = [rows[3]]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("curate.job._CHUNK", 2)
    monkeypatch.setattr("curate.example._CHUNK", 3)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    overrides = ["data.path=in.jsonl", "selection=top_k", "selection.k=4", "dedup.near=1", "out.path=out.jsonl"]
    monkeypatch.setattr(sys, "argv", ["curate", *overrides, "out.rejected=gone.jsonl"])
    main()
    assert capsys.readouterr().out == "13 rows in = 4 kept + 9 rejected + 0 set aside\n"
    kept, gone = ([json.loads(line) for line in (tmp_path / name).open()] for name in ("out.jsonl", "gone.jsonl"))
    assert [(row["instruction"], row["kept_because"]) for row in kept] == [
        (f"q{at}", f"score {2 * at + 1}, rank {12 - at} of 12") for at in range(8, 12)
    ]
    assert [row["instruction"] for row in gone] == [f"q{at}" for at in (0, 1, 2, 3, 4, 5, 6, 3, 7)]
    reasons = [row["rejected_because"] for row in gone]
    assert reasons[7].endswith(f"of {gone[3]['id']}")
    assert reasons[:7] == [f"score {2 * at + 1}, rank {12 - at} of 12" for at in range(7)]
    assert [row.get("score") for row in gone] == [1, 3, 5, 7, 9, 11, 13, None, 15]
