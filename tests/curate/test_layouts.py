"""Chats, ShareGPT and prompt lists, in and out; sources that are zipped, cut short, or on the hub."""

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from curate import UserError
from curate.example import column, load_pool, make_pool
from curate.layouts import LAYOUTS
from curate.reading import records
from curate.writing import check_output, write_rows

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Name a colour."},
    {"role": "assistant", "content": "Red."},
]
ROW = {"instruction": "Name a colour.", "input": "", "output": "Red."}


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sharegpt(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    names = {"user": "human", "assistant": "gpt"}
    return [{"from": names.get(m["role"], m["role"]), "value": m["content"]} for m in messages]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": CHAT},
        {"conversations": sharegpt(CHAT)},
        {"prompt": CHAT[:4], "completion": CHAT[4:]},
        {"messages": [*CHAT, {"role": "user", "content": "Thanks"}]},
        {"messages": [*CHAT[:4], {"role": "assistant", "content": [{"type": "text", "text": "Red."}]}]},
    ],
)
def test_the_last_answer_is_the_response_and_the_rest_is_context(tmp_path: Path, row: dict[str, Any]) -> None:
    found = load_pool(write(tmp_path / "x.jsonl", [row])).pool[0]
    assert (found["instruction"], found["output"]) == ("Name a colour.", "Red.")
    assert found["input"] == "system: Be brief.\n\nuser: Hi\n\nassistant: Hello."


@pytest.mark.parametrize("suffix", ["json", "jsonl", "jsonl.gz", "parquet"])
@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_every_layout_comes_back_as_it_went(tmp_path: Path, layout: str, suffix: str) -> None:
    pool = load_pool(write(tmp_path / "x.jsonl", [{"messages": CHAT}, ROW, {"messages": CHAT[1:3]}])).pool
    write_rows(tmp_path / f"out.{suffix}", pool, layout=layout)
    again = load_pool(tmp_path / f"out.{suffix}").pool
    for name in ("instruction", "input", "output", "turns"):
        assert column(again, name) == column(pool, name)


def test_layouts_are_what_their_readers_expect(tmp_path: Path) -> None:
    pool = make_pool([{**ROW, "input": "bright"}], source="s")
    written = {}
    for layout in LAYOUTS:
        write_rows(tmp_path / f"{layout}.jsonl", pool, layout=layout, extra={"kept_because": ["it is good"]})
        written[layout] = json.loads((tmp_path / f"{layout}.jsonl").read_text())
    asked, answer = {"role": "user", "content": "Name a colour.\n\nbright"}, {"role": "assistant", "content": "Red."}
    assert written["messages"]["messages"] == [asked, answer]
    assert (written["trl"]["prompt"], written["trl"]["completion"]) == ([asked], [answer])
    assert written["sharegpt"]["conversations"] == sharegpt([asked, answer])
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert info["llama_factory"]["file_name"] == "llama_factory.jsonl"
    assert info["llama_factory"]["columns"]["messages"] in written["llama_factory"]
    for row in written.values():
        assert (row["kept_because"], row["source"]) == ("it is good", "s") and row["id"]


def test_a_csv_cannot_hold_turns(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^out\.layout=messages: a CSV file cannot hold turns"):
        check_output(tmp_path / "x.csv", "out.path", "messages")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": []}, "output is missing (no turn of an assistant)"),
        ({"messages": CHAT[2:3]}, "instruction is missing (before the last answer stands nothing)"),
        (
            {"messages": [CHAT[0], CHAT[2]]},
            "instruction is missing (before the last answer stands a turn of role system)",
        ),
        ({"messages": ["hi"]}, "turn 1 should be an object, not str"),
        ({"messages": [{"role": "user"}]}, "turn 1 should be text, not NoneType"),
        ({"messages": [{"role": 1, "content": "x"}]}, "the role of turn 1 should be text, not int"),
        ({"messages": [{"role": "user", "content": {"a": 1}}]}, "turn 1 should be text, not dict"),
        ({"messages": [CHAT[1], {"role": "assistant", "content": "\ud800"}]}, "turn 2 is not valid UTF-8"),
        ({"messages": [CHAT[1], {"role": "assistant", "content": " "}]}, "output is empty"),
    ],
)
def test_bad_conversations_are_set_aside_with_a_reason(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    loaded = load_pool(write(tmp_path / "x.jsonl", [ROW, row]), max_bad_share=0.5)
    assert [(bad.line, bad.reason) for bad in loaded.bad] == [(2, reason)]


def test_a_key_that_stands_twice_is_no_good_row(tmp_path: Path) -> None:
    twice = '{"instruction": "a", "output": "b", "output": "c"}'
    for name, text in (("x.jsonl", f"{json.dumps(ROW)}\n{twice}\n"), ("x.json", f"[{json.dumps(ROW)},\n{twice}]")):
        (tmp_path / name).write_text(text)
        loaded = load_pool(tmp_path / name, max_bad_share=0.5)
        assert [(bad.line, bad.reason) for bad in loaded.bad] == [(2, "the key 'output' stands twice")]


def test_zipped_and_marked_files(tmp_path: Path) -> None:
    body = "\ufeff" + json.dumps(ROW) + "\n" + json.dumps(ROW)
    for name in ("x.jsonl.gz", "y.jsonl"):  # y: zipped, and nobody would know by its name
        (tmp_path / name).write_bytes(gzip.compress(body.encode()))
        assert len(load_pool(tmp_path / name).pool) == 2
    (tmp_path / "short.jsonl.gz").write_bytes(gzip.compress(body.encode() * 99)[:-20])
    with pytest.raises(UserError, match=r"short.jsonl.gz: the compressed file ends too early or is damaged"):
        load_pool(tmp_path / "short.jsonl.gz")
    (tmp_path / "wide.json").write_text(json.dumps([ROW]), encoding="utf-16")
    with pytest.raises(UserError, match=r"wide.json: is UTF-16; write it as UTF-8"):
        load_pool(tmp_path / "wide.json")


def test_hub_names_say_revision_config_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load(name: str, config: str | None, *, split: str, revision: str | None) -> list[dict[str, str]]:
        asked.append((name, config, split, revision))
        return [ROW]

    monkeypatch.setattr(datasets, "load_dataset", load)
    for source in ("hub:a/b", "hub:a/b:test", "hub:a/b@main:fr:test"):
        assert list(records(source)) == [(1, ROW)]
    assert asked == [("a/b", None, "train", None), ("a/b", None, "test", None), ("a/b", "fr", "test", "main")]
    assert load_pool("hub:a/b").pool[0]["source"] == "hub:a/b"
    with pytest.raises(UserError, match=r"^data.pairs=hub:a:b:c:d: write hub:NAME"):
        list(records("hub:a:b:c:d", "data.pairs"))


def test_a_hub_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(UserError, match=r"^data.path=hub:a/b: not to be had from the hub \(no route\); correct it"):
        load_pool("hub:a/b")
