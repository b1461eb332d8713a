"""Loading any source into the schema, and writing it out again."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curate import UserError
from curate.example import FEATURES, BadRow, column, digest, load_pool, make_pool, pool_hash, render, take
from curate.writing import write_rows

GOOD = {"instruction": "Name a colour.", "input": "", "output": "Red."}


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_importing_curate_is_light() -> None:
    code = "import sys, curate, curate.select, curate.noise, curate.duplicate, curate.scoring.surface;"
    code += "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_make_pool_fills_columns_and_ids() -> None:
    pool = make_pool([GOOD, {"instruction": "a", "output": "b", "id": "mine", "near_miss": "c"}], source="here")
    assert pool.features == FEATURES
    assert column(pool, "id") == [digest("Name a colour.", "", "Red."), "mine"]
    assert column(pool, "source") == ["here", "here"]
    assert column(pool, "input") == ["", ""]
    assert column(pool, "near_miss") == [None, "c"]
    assert column(pool, "score") == [None, None]


def test_ids_are_content_hashes() -> None:
    assert digest("a", "b", "c") == digest("a", "b", "c")
    assert len({digest("a", "b", "c"), digest("ab", "", "c"), digest("a", "bc", "")}) == 3
    assert digest("x").isalnum()
    assert len(digest("x")) == 16


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv", "parquet"])
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    rows = [
        GOOD,
        {"instruction": 'A "quoted", one\nwith lines', "input": "Zürich \u2028 \x85 x", "output": " spaces\r\nkept \t"},
        {"instruction": "[", "output": "{}", "category": "code", "near_miss": "[]"},
    ]
    pool = make_pool(rows, source="x")
    write_rows(tmp_path / f"x.{suffix}", pool)
    loaded = load_pool(tmp_path / f"x.{suffix}")
    assert loaded.pool.to_list() == pool.to_list()
    assert (loaded.read, loaded.bad) == (3, [])
    assert [path.name for path in tmp_path.iterdir()] == [f"x.{suffix}"]


def test_columns_without_values_are_not_written(tmp_path: Path) -> None:
    write_rows(tmp_path / "x.jsonl", make_pool([GOOD], source="s"))
    assert list(json.loads((tmp_path / "x.jsonl").read_text())) == ["id", "instruction", "input", "output", "source"]


def test_rows_taken_are_those_of_select(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.example._CHUNK", 7)  # so that the pool has several pieces
    pool = make_pool([{"instruction": f"q{at}", "output": "o"} for at in range(40)], source="s")
    for rows in ([], [0], [3, 6, 7, 8, 39], list(range(40))):
        taken = take(pool, np.array(rows, np.int64))
        assert taken.to_list() == (pool.select(rows).to_list() if rows else [])
        assert taken.features == FEATURES
    assert column(take(pool.select([5, 3, 9]), np.array([0, 2])), "instruction") == ["q5", "q9"]
    for rows in ([1, 0], [1, 1]):
        with pytest.raises(ValueError, match="must ascend"):
            take(pool, np.array(rows))


def test_prompt_and_completion_and_field_map(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", '{"prompt": "p", "completion": "c"}\n\n{"prompt": "q", "response": "r"}\n')
    assert column(load_pool(path).pool, "output") == ["c", "r"]
    path = write(tmp_path / "y.json", '[{"question": "p", "input": "not this", "answer": "c", "category": 7}]')
    pool = load_pool(path, fields={"instruction": "question", "output": "answer", "input": None, "category": None}).pool
    assert (pool[0]["instruction"], pool[0]["input"], pool[0]["output"]) == ("p", "", "c")


def test_bad_rows_of_json_lines_are_set_aside(tmp_path: Path) -> None:
    lines = [json.dumps(GOOD).encode()] * 13
    lines[1] = b'{"instruction": "a"}'
    lines[2] = b'{"instruction": "a", "output": 3}'
    lines[3] = b'{"instruction": "a", "output": "  "}'
    lines[4] = b'{"instruction": "a", "output": "b"'
    lines[5] = b'{"instruction": "a", "output": "caf\xe9"}'
    lines[6] = b"[1, 2]"
    lines[7] = b'{"instruction": " ", "output": "b"}'
    lines[8] = b'{"instruction": "a", "output": "\\ud800"}'
    lines[9] = b"[" * 100_000
    path, aside = write(tmp_path / "x.jsonl", b"\n".join(lines)), tmp_path / "bad.jsonl"
    loaded = load_pool(path, max_bad_share=0.7, set_aside=aside)
    assert len(loaded.pool) == 4
    assert loaded.read == 13
    assert [row.line for row in loaded.bad] == [2, 3, 4, 5, 6, 7, 8, 9, 10]
    reasons = [row.reason for row in loaded.bad]
    assert reasons[0] == "output is missing (fields here: instruction)"
    assert reasons[1] == "output should be text, not int"
    assert reasons[2] == "output is empty"
    assert reasons[3].startswith("malformed JSON")
    assert reasons[4] == reasons[7] == "output is not valid UTF-8"
    assert reasons[5] == "expected an object, got list"
    assert reasons[6] == "instruction is empty"
    assert reasons[8].startswith("malformed JSON")
    assert [BadRow(**json.loads(line)) for line in aside.read_text().splitlines()] == loaded.bad


def test_lines_of_a_json_list_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", json.dumps([GOOD, {"instruction": "a"}, GOOD, {**GOOD, "output": ""}], indent=2))
    loaded = load_pool(path, max_bad_share=0.5)
    assert [row.line for row in loaded.bad] == [7, 15]
    assert len(loaded.pool) == 2
    path.write_text(json.dumps([GOOD, {"instruction": "a"}, GOOD, {**GOOD, "output": ""}]) + "\n")
    assert [row.line for row in load_pool(path, max_bad_share=0.5).bad] == [2, 4]  # all is one line


def test_bad_rows_of_csv(tmp_path: Path) -> None:
    text = 'instruction,output\r\na,"two\r\nlines"\r\nb\r\nc,\r\nd,e\r\n'
    loaded = load_pool(write(tmp_path / "x.csv", text), max_bad_share=0.5)
    assert column(loaded.pool, "output") == ["two\r\nlines", "e"]
    assert loaded.bad == [BadRow(4, "malformed CSV: 1 values for 2 columns"), BadRow(5, "output is empty")]


def test_too_many_bad_rows_stop_the_loading(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", "\n".join([json.dumps(GOOD)] * 19 + ["{"]))
    assert len(load_pool(path, max_bad_share=0.05).bad) == 1
    with pytest.raises(UserError, match=r"^data.max_bad_share=0.04: 1 of 20 rows .* line 20: malformed JSON"):
        load_pool(path, max_bad_share=0.04)


def test_an_old_list_of_bad_rows_does_not_stay(tmp_path: Path) -> None:
    path, aside = write(tmp_path / "x.jsonl", json.dumps(GOOD)), write(tmp_path / "bad.jsonl", "old")
    load_pool(path, set_aside=aside)
    assert not aside.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", "", "no usable row among 0; is the file empty"),
        ("x.json", "[]", "no usable row among 0"),
        ("x.csv", "instruction,output\n", "no usable row among 0"),
        ("x.csv", "a,b\n1,2\n", r"line 2: instruction is missing \(fields here: a, b\)"),
        ("x.json", '[{"instruction": "a",\n "output": "b"}', "malformed JSON at line 2"),
        ("x.json", '[{"instruction": "a"\n "output": "b"}]', "malformed JSON at line 2"),
        ("x.json", '[{"instruction": "a", "output": "b"}] x', "something follows the list"),
        ("x.json", "[" * 100_000, "malformed JSON"),
        ("x.json", '"text"', "expected a list of objects"),
        ("x.txt", "a", "unknown kind of file '.txt'"),
        ("x.parquet", "no parquet", "malformed Parquet"),
    ],
)
def test_unusable_files_are_one_clear_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        load_pool(write(tmp_path / name, content))
    assert "\n" not in str(error.value)
    assert str(tmp_path / name) in str(error.value)


def test_missing_file_and_too_few_rows(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.path=.*no such file"):
        load_pool(tmp_path / "none.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(UserError, match=r"data.path=.*is a directory"):
        load_pool(tmp_path / "folder.json")
    path = write(tmp_path / "x.json", json.dumps([GOOD] * 3))
    assert len(load_pool(path, rows=2).pool) == 2
    with pytest.raises(UserError, match=r"data.rows=4: .* 3 good rows"):
        load_pool(path, rows=4)


def test_json_lines_called_json(tmp_path: Path) -> None:
    assert len(load_pool(write(tmp_path / "x.json", json.dumps(GOOD) + "\n" + json.dumps(GOOD))).pool) == 2


TEMPLATE = {"without_input": "Q {instruction} A", "with_input": "Q {instruction} | {input} A"}


@pytest.mark.parametrize("instruction", ["name a colour", "{input}", "{instruction}", "{0} {x!r} {", "\\1 \\g<0>"])
@pytest.mark.parametrize("extra", ["", "some", "{instruction}", "{input}", "}{"])
def test_render_takes_braces_as_data(instruction: str, extra: str) -> None:
    expected = f"Q {instruction} | {extra} A" if extra else f"Q {instruction} A"
    assert render(TEMPLATE, instruction, extra) == expected


def test_pool_hash_sees_content_and_order() -> None:
    a, b = {"instruction": "a", "output": "a"}, {"instruction": "b", "output": "b"}
    first = pool_hash(make_pool([a, b], source="s"))
    assert first == pool_hash(make_pool([a, b], source="s"))
    others: tuple[list[dict[str, Any]], ...] = (
        [b, a],
        [a],
        [a, {**b, "noise_kind": "truncated"}],
        [a, {**b, "score": 1.0}],
        [a, {**b, "output": "c"}],
    )
    assert len({first, *(pool_hash(make_pool(rows, source="s")) for rows in others)}) == 6


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = write(tmp_path / "out.jsonl", "old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # as a full disk does, writing fails half-way
    try:
        with pytest.raises(UserError, match=r"^out.path=.*cannot write it \(file too large\); free space"):
            write_rows(path, make_pool([GOOD] * 100, source="s"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["out.jsonl"]


def test_all_of_alpaca(alpaca: Path) -> None:
    from curate.scoring.surface import length
    from curate.select import select

    loaded = load_pool(alpaca)
    kept = select(loaded.pool, kind="top_k", seed=0, scores=length(loaded.pool), k=9229)
    assert (loaded.read, len(loaded.pool), len(loaded.bad), len(kept)) == (52_002, 51_974, 28, 9229)
    assert {row.reason for row in loaded.bad} == {"output is empty"}
