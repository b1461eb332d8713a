"""Whatever a file holds: rows are loaded or set aside, what cannot be read is one line, what is written comes back.

By default 500 cases, always the same; `pytest -m soak tests/curate/test_fuzz.py` tries 10,000 new ones and 10 MB rows.
"""

import csv
import functools
import gzip
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hydra import compose, initialize_config_dir
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from curate import UserError
from curate.__main__ import check
from curate.config import DecontaminateConfig, DedupConfig
from curate.example import LoadedPool, column, load_pool, make_pool
from curate.job import Job, curate
from curate.layouts import LAYOUTS
from curate.neardup import decontaminate, near_duplicates
from curate.writing import write_rows

pytestmark = pytest.mark.filterwarnings("ignore:selection.kind", "ignore:all scores equal")  # of one row, say

ODD = (
    "\x00", "\x1b[31m", "\u202e", "\u200f", "\u061c", "\ufeff", "\u2028", "\x85", "\x1f", "\r", "\r\n", "\n", "\t", " ",
    '"', '""', "'", ",", ";", "\\", "\\n", "\\ud800", "{", "}", "[", "]", "null", "{instruction}", "=1+1", "#", "~",
    "<script>alert(1)</script>", "<b>", "&amp;", "]]>", "```", "user: ", "日本語", "שלום", "é", "e\u0301", "😀",
    "\U0010ffff",
)  # fmt: skip
TEXT = st.lists(st.sampled_from(ODD) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=8).map(
    "".join
)
LONG = st.builds(lambda text, times: text * times, TEXT, st.sampled_from([1, 1, 1, 40, 400]))
FULL = LONG.filter(lambda text: bool(text.strip()))  # neither empty nor blank
BROKEN = st.builds(lambda a, b: f"{a}\ud800{b}", TEXT, TEXT)  # cannot be UTF-8
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | BROKEN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | BROKEN, inner, max_size=3),
    max_leaves=6,
)
WRONG = st.none() | st.integers() | st.floats() | st.lists(JUNK, max_size=2) | st.dictionaries(TEXT, JUNK, max_size=2)
Fields = tuple[str, str, str]  # instruction, input, output


@dataclass(frozen=True)
class Case:
    """Something that takes the place of a row, and what must become of it: fields, False (set aside), None (either)."""

    raw: Any
    fields: Fields | bool | None


GOOD = st.builds(
    lambda i, o, x: Case(
        {"instruction": i, "output": o, **({} if x is None else {"input": x})}, (i, x or "", o)
    ),
    FULL, FULL, st.none() | LONG,
)  # fmt: skip
PROMPTED = st.builds(lambda i, o: Case({"prompt": i, "completion": o, "extra": None}, (i, "", o)), FULL, FULL)
ROLES = st.sampled_from(["user", "assistant", "system", "human", "gpt", "tool", "", "\n"])
TURN = st.builds(lambda r, c: {"role": r, "content": c}, ROLES, LONG) | st.builds(
    lambda r, c: {"from": r, "value": c}, ROLES, LONG
)
CHAT = st.builds(
    lambda name, before, i, o: Case(
        {name: [*before, {"role": "user", "content": i}, {"role": "assistant", "content": o}]},
        (i, "\n\n".join(f"{said(t)}" for t in before), o),
    ),
    st.sampled_from(["messages", "conversations"]), st.lists(TURN, max_size=3), FULL, FULL,
)  # fmt: skip
BAD = (
    st.builds(
        lambda i, o: Case({"instruction": i, "output": o}, False), FULL, WRONG | BROKEN | st.sampled_from(["", " \n"])
    )
    | st.builds(lambda i, o: Case({"instruction": i, "output": o}, False), WRONG | BROKEN | st.just(" "), FULL)
    | st.builds(lambda row: Case(row, False), st.none() | st.integers() | TEXT | st.lists(JUNK, max_size=2))
)
NAMES = ("instruction", "prompt", "input", "output", "completion", "messages", "conversations", "category", "near_miss",
         "turns", "id", "source", "score")  # fmt: skip
ANY = st.builds(
    lambda row: Case(row, None),
    st.dictionaries(st.sampled_from(NAMES) | TEXT, JUNK | st.lists(TURN | JUNK, max_size=3), max_size=5),
)
CASES = st.lists(GOOD | PROMPTED | CHAT | BAD | ANY, max_size=6)


def said(turn: dict[str, str]) -> str:
    role = turn.get("role", turn.get("from", ""))
    known = {"human": "user", "gpt": "assistant"}
    return f"{known.get(role, role)}: {turn.get('content', turn.get('value'))}"


def fuzz(cases: int, *strategies: Any) -> Callable[[Callable[..., None]], Any]:
    """A test of so many cases, the same ones each time; twenty times as many new ones in a soak."""

    def made(body: Callable[..., None]) -> Any:
        @pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.soak)])
        def test(times: int, tmp_path: Path) -> None:
            @settings(
                max_examples=cases * times, deadline=None, derandomize=times == 1, database=None,
                suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            @given(st.tuples(*strategies))
            def every(drawn: tuple[Any, ...]) -> None:
                body(tmp_path, *drawn)

            every()

        return test

    return made


def loaded(path: Path) -> LoadedPool | None:
    """The loaded file if it can be loaded; that its counts agree; that what is said of it is one line."""
    aside = path.parent / "aside.jsonl"
    try:
        found = load_pool(path, max_bad_share=1.0, set_aside=aside)
    except UserError as error:
        said = str(error)
    else:
        said = ""
    if said:
        assert said.isprintable() and len(said) < 1000
        return None
    assert found.read == len(found.pool) + len(found.bad)
    listed = [json.loads(line) for line in aside.read_text().split("\n")[:-1]] if found.bad else []
    assert [(row["line"], row["reason"]) for row in listed] == [(row.line, row.reason) for row in found.bad]
    assert all(row.reason.isprintable() and 0 < len(row.reason) < 500 for row in found.bad)
    return found


def fields(pool: Any) -> list[Fields]:
    return list(zip(*(column(pool, name) for name in ("instruction", "input", "output")), strict=True))


def accounted(found: LoadedPool | None, cases: list[Case]) -> None:
    """Every row is good or bad, as it must be, and says what it said."""
    sure = [case for case in cases if isinstance(case.fields, tuple)]
    if found is None:
        assert not sure
        return
    assert found.read == len(cases)
    rows = iter(fields(found.pool))
    left = list(rows)
    for case in sure:  # in order, with rows of which nobody knows between them
        assert case.fields in left
        left = left[left.index(case.fields) + 1 :]
    assert len(found.bad) >= sum(case.fields is False for case in cases)


def dumped(value: Any, ascii_: bool, **options: Any) -> bytes:
    return json.dumps(value, ensure_ascii=ascii_, **options).encode("utf-8", "surrogatepass")


CUT = st.none() | st.floats(0, 1, exclude_max=True)  # where a file or line ends too early


@st.composite
def lines(draw: st.DrawFn) -> tuple[bytes, Case]:
    """A line of a JSONL file."""
    case, ascii_ = draw(GOOD | PROMPTED | CHAT | BAD | ANY), draw(st.booleans())
    line = dumped(case.raw, ascii_)
    how = draw(st.sampled_from(["whole", "whole", "whole", "cut", "twice", "after", "bytes"]))
    if how == "cut" and len(line) > 1 and isinstance(case.raw, dict):
        return line[: 1 + int(draw(st.floats(0, 1, exclude_max=True)) * (len(line) - 1))], replace(case, fields=False)
    if how == "twice" and isinstance(case.raw, dict) and case.raw:
        name = json.dumps(draw(st.sampled_from(sorted(case.raw))))
        return b"{" + name.encode() + b": 1, " + line[1:], replace(case, fields=False)
    if how == "after":
        return line + b" x", replace(case, fields=False)
    if how == "bytes":
        junk = draw(st.binary(min_size=1, max_size=20)).replace(b"\n", b"?").replace(b"\r", b"?")
        return b"\xff" + junk, Case(None, False)
    return line, case


@fuzz(
    150,
    st.lists(lines(), max_size=6),
    st.sampled_from(["", "bom", "gzip", "both"]),
    st.sampled_from([b"\n", b"\r\n", b"\n \n"]),
)
def test_json_lines(folder: Path, rows: list[tuple[bytes, Case]], how: str, end: bytes) -> None:
    content = b"".join(line + end for line, _ in rows)
    content = b"\xef\xbb\xbf" * (how in ("bom", "both")) + content
    path = folder / "x.jsonl"
    path.write_bytes(gzip.compress(content) if how in ("gzip", "both") else content)
    accounted(loaded(path), [case for _, case in rows])


@fuzz(60, CASES, st.booleans(), st.sampled_from([None, 1]), CUT, st.booleans())
def test_json_lists(
    folder: Path, cases: list[Case], ascii_: bool, indent: int | None, cut: float | None, bom: bool
) -> None:
    content = dumped([case.raw for case in cases], ascii_, indent=indent)
    path = folder / "x.json"
    path.write_bytes(b"\xef\xbb\xbf" * bom + (content if cut is None else content[: int(cut * len(content))]))
    found = loaded(path)
    if cut is None:
        accounted(found, cases)
    else:
        assert found is None  # a list that does not end may have lost anything


CELL = LONG | st.sampled_from(["", " "])


# Without \r\n as the end of a row, Python's writer leaves a lone \r unquoted
WRITTEN = st.sampled_from([(csv.QUOTE_MINIMAL, "\r\n"), (csv.QUOTE_ALL, "\r\n"), (csv.QUOTE_ALL, "\n")])


@fuzz(60, st.lists(st.tuples(CELL, CELL, CELL), max_size=6), WRITTEN, st.booleans())
def test_csv(folder: Path, cells: list[Fields], how: tuple[Any, str], bom: bool) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=how[0], lineterminator=how[1])
    writer.writerows([("instruction", "input", "output"), *cells])
    path = folder / "x.csv"
    path.write_bytes(b"\xef\xbb\xbf" * bom + text.getvalue().encode())
    good = [row for row in cells if row[2].strip() and (row[0] + row[1]).strip()]
    found = loaded(path)
    assert (fields(found.pool) if found else []) == good
    assert found is None or found.read == len(cells)


@fuzz(60, st.lists(TEXT | st.sampled_from(["instruction,output", "a,b", 'a,"b', '"a"b,c', '"'])), CUT)
def test_csv_with_stray_quotes_and_anything_else(folder: Path, rows: list[str], cut: float | None) -> None:
    content = "\n".join(rows).encode()
    (folder / "x.csv").write_bytes(
        b"instruction,output\n" + content[: None if cut is None else int(cut * len(content))]
    )
    loaded(folder / "x.csv")
    (folder / "y.csv").write_bytes(content)
    loaded(folder / "y.csv")


def test_a_quote_that_is_never_closed_says_what_it_swallowed(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('instruction,output\na,b\nc,"d\ne,f\ng,h\n')
    found = loaded(tmp_path / "x.csv")
    assert found is not None
    assert [(row.line, row.reason) for row in found.bad] == [
        (3, "malformed CSV: unexpected end of data (lines 3 to 5 are taken as one row)")
    ]


COLUMNS = {
    "text": pyarrow.string(), "large": pyarrow.large_string(),
    "choice": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
}  # fmt: skip
BESIDE: tuple[tuple[str, Any], ...] = (
    ("number", 3), ("time", datetime(2020, 1, 1)), ("money", Decimal("1.5")), ("bytes", b"\xff"),
    ("nested", {"a": [None]}),
)  # fmt: skip


@fuzz(
    60,
    st.lists(st.tuples(LONG | st.none(), LONG | st.none(), LONG | st.none()), max_size=6),
    st.sampled_from(sorted(COLUMNS)),
    st.lists(st.sampled_from(BESIDE)),
    CUT,
)
def test_parquet(folder: Path, rows: list[Any], kind: str, beside: list[tuple[str, Any]], cut: float | None) -> None:
    names = ("instruction", "input", "output")
    columns = {name: pyarrow.array([row[at] for row in rows], COLUMNS[kind]) for at, name in enumerate(names)}
    columns |= {name: pyarrow.array([value] * len(rows)) for name, value in beside}
    path = folder / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    if cut is not None:
        path.write_bytes(path.read_bytes()[: int(cut * path.stat().st_size)])
        assert loaded(path) is None
        return
    good = [
        (i or "", x or "", o) for i, x, o in rows if i is not None and (o or "").strip() and (i + (x or "")).strip()
    ]
    found = loaded(path)
    assert (fields(found.pool) if found else []) == good
    assert found is None or found.read == len(rows)


def test_parquet_of_values_that_python_does_not_know(tmp_path: Path) -> None:
    row = {"instruction": ["a"], "output": ["b"]}
    for name, array in (
        ("when", pyarrow.array([2**50], pyarrow.timestamp("s"))), ("day", pyarrow.array([2**31 - 1], pyarrow.date32())),
    ):  # fmt: skip
        pyarrow.parquet.write_table(pyarrow.table({**row, name: array}), tmp_path / "x.parquet")
        loaded(tmp_path / "x.parquet")


@fuzz(
    40,
    st.lists(lines(), min_size=1, max_size=4),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from([".jsonl", ".jsonl.gz", ".csv", ".json"]),
)
def test_zipped_files_that_end_too_early(folder: Path, rows: list[tuple[bytes, Case]], cut: float, suffix: str) -> None:
    content = gzip.compress(b"\n".join(line for line, _ in rows))
    path = folder / f"x{suffix}"
    path.write_bytes(content[: int(cut * len(content))])
    assert loaded(path) is None


@fuzz(
    50,
    st.lists(GOOD | PROMPTED | CHAT, min_size=1, max_size=5),
    st.sampled_from(["json", "jsonl", "jsonl.gz", "csv", "csv.gz", "parquet"]),
    st.sampled_from(sorted(LAYOUTS)),
)
def test_what_is_written_comes_back(folder: Path, cases: list[Case], suffix: str, layout: str) -> None:
    (folder / "x.json").write_bytes(dumped([case.raw for case in cases], True))
    pool = load_pool(folder / "x.json").pool
    layout = "rows" if suffix.startswith("csv") else layout
    write_rows(folder / f"out.{suffix}", pool, layout=layout)
    again = loaded(folder / f"out.{suffix}")
    assert again is not None and not again.bad
    expected = [case.fields for case in cases]
    if layout != "rows":  # turns have no place for an input: it is asked with the instruction
        said = zip(pool, expected, strict=True)
        expected = [
            (f"{i}\n\n{x}", "", o) if x and not row["turns"] else (i, x, o)
            for row, (i, x, o) in said  # type: ignore[misc]
        ]
    assert fields(again.pool) == expected
    assert column(again.pool, "turns") == column(pool, "turns")


@functools.cache
def _job() -> Job:
    given = ["data.path=in", "cache=null", "data.max_bad_share=1", "selection=top_fraction"]
    with initialize_config_dir(str(Path(__file__).parents[2] / "conf"), version_base=None):
        return check(compose("curate", [*given, "out.path=out.json", "selection.fraction=0.5"]))


@fuzz(
    20,
    st.lists(lines(), min_size=1, max_size=6),
    st.sampled_from([0.3, 0.8]),
    st.sampled_from(["json", "csv", "parquet"]),
)
def test_kept_and_rejected_and_set_aside_are_all(
    folder: Path, rows: list[tuple[bytes, Case]], near: float, suffix: str
) -> None:
    assume(rows[0][0][:2] not in (b"\xff\xfe", b"\xfe\xff"))  # a file that starts so is UTF-16 and refused as a whole
    good = dumped({"instruction": "a", "output": "b"}, True)
    source, suite = folder / "in.jsonl", folder / "suite.jsonl"
    source.write_bytes(b"".join(line + b"\n" for line, _ in rows) + good)
    suite.write_text('{"prompt": "a b c"}\n')
    job = replace(
        _job(),
        source=str(source),
        out=folder / f"out.{suffix}",
        rejected=folder / f"rejected.{suffix}",
        dedup=DedupConfig(near=near),
        decontaminate=DecontaminateConfig(paths=[str(suite)]),
    )
    said = [int(count) for count in re.findall(r"\d+", curate(job))[:4]]
    assert said[0] == len(rows) + 1 == sum(said[1:])
    for path, count in ((job.out, said[1]), (job.rejected, said[2])):
        assert path is not None
        back = loaded(path)
        assert (len(back.pool) if back else 0) == count and not (back and back.bad)


@fuzz(20, st.lists(LONG, max_size=8), st.floats(0.05, 1))
def test_near_duplicates_of_anything(folder: Path, texts: list[str], threshold: float) -> None:
    pool = make_pool([{"instruction": text, "output": text[::-1]} for text in texts], source="t")
    removed = near_duplicates(pool, threshold=threshold)
    gone = {one.row for one in removed}
    for one in removed:
        assert one.of is not None and one.of < one.row and one.of not in gone
        assert threshold <= one.similarity <= 1
    alike = {" ".join(f"{text} {text[::-1]}".lower().split()) for text in texts}
    assert len(texts) - len(removed) <= len(alike)
    worded = [text for text in texts if re.search(r"[^\W_]", text)]
    found = {one.row for one in decontaminate(pool, {"s": texts})}
    assert found >= {row for row, text in enumerate(texts) if text in worded}


@pytest.mark.soak
@pytest.mark.parametrize("suffix", ["json", "jsonl", "jsonl.gz", "csv", "parquet"])
def test_rows_of_ten_megabytes(tmp_path: Path, suffix: str) -> None:
    whole = "".join(ODD)
    rows = [
        {"instruction": "long", "output": (text * (10_000_000 // len(text)))[:10_000_000] + "."}
        for text in (*ODD, whole)
    ]
    pool = make_pool(rows, source="t")
    write_rows(tmp_path / f"x.{suffix}", pool)
    found = loaded(tmp_path / f"x.{suffix}")
    assert found is not None and fields(found.pool) == fields(pool)
    assert near_duplicates(found.pool.select(range(5)), threshold=0.9) is not None
