"""A teacher's answers come back to the rows they were asked for, or not at all."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from curate import UserError
from curate.__main__ import main
from curate.config import EndpointConfig
from curate.example import column, make_pool
from curate.teacher import answers
from tests.curate.stub import SECRET, Stub


def pool_of(*instructions: str, input: str = "") -> Dataset:
    return make_pool([{"instruction": one, "input": input, "output": "old"} for one in instructions], source="test")


def endpoint(stub: Stub, **options: Any) -> EndpointConfig:
    given = {"model": "m", "base_url": stub.url, "api_key_env": "JUDGE_KEY", "concurrency": 4, "max_retries": 0}
    return EndpointConfig.model_validate({**given, **options})


def test_each_row_gets_its_own_answer(stub: Stub) -> None:
    told: list[tuple[int, int]] = []
    pool = pool_of(*(f"reply=answer {at}; {at}" for at in range(12)))
    found = answers(pool, endpoint(stub), progress=lambda done, total: told.append((done, total)))
    assert found == [f"answer {at}" for at in range(12)]
    assert told == [(done, 12) for done in range(1, 13)]


def test_what_is_asked(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    answers(pool_of("reply=x; Add.", input="1 and 2"), endpoint(stub, prices={"m": [1.0, 1.0]}))
    [asked] = stub.asked
    assert asked["messages"][1] == {"role": "user", "content": "reply=x; Add.\n\n1 and 2"}
    assert "old" not in str(asked["messages"]).split()  # the response that was rejected is not shown
    assert "response_format" not in asked
    assert capsys.readouterr().err.startswith("teacher m: 1 rows to ask, about ")


def test_what_fails_is_cut_or_empty_leaves_the_row_as_it_is(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    pool = pool_of(
        "reply=good;", "fault=500x9 reply=a;", "reply=half an ans; finish=length", "reply=  ;",
        "reply=<think>5 or 6?</think> six;",
    )  # fmt: skip
    assert answers(pool, endpoint(stub)) == ["good", None, None, None, "six"]
    assert capsys.readouterr().err.endswith("teacher m: no new response for 3 of 5 rows\n")


def test_what_was_paid_for_is_returned_when_the_money_is_gone(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    pool = pool_of(*(f"reply=answer {at};" for at in range(10)))
    limited = endpoint(stub, prices={"m": [0.0, 100.0]}, max_tokens=20, max_cost=0.0055, concurrency=1)
    assert answers(pool, limited) == [*(f"answer {at}" for at in range(4)), *[None] * 6]
    assert len(stub.asked) == 4
    said = capsys.readouterr().err
    assert said.endswith("no new response for 6 of 10 rows (rewrite.endpoint.max_cost=0.0055 is reached)\n")


def test_a_run_that_was_stopped_pays_for_no_answer_twice(stub: Stub, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 4:
            raise KeyboardInterrupt

    cut = "reply=half an ans; finish=length"
    pool = pool_of("reply=answer 0;", cut, *(f"reply=answer {at};" for at in range(2, 9)), "fault=500x9 reply=a;")
    with pytest.raises(KeyboardInterrupt):
        answers(pool, endpoint(stub, concurrency=1), cache=tmp_path, progress=stop)
    assert len(stub.asked) == 4
    expected = ["answer 0", None, *(f"answer {at}" for at in range(2, 9)), None]
    assert answers(pool, endpoint(stub, concurrency=1), cache=tmp_path) == expected
    assert Counter(stub.rows()) == dict.fromkeys(column(pool, "instruction"), 1)
    stub.healed = True
    assert answers(pool, endpoint(stub, concurrency=2), cache=tmp_path) == [*expected[:-1], "a"]
    assert len(stub.asked) == 11  # only what failed was asked again
    assert answers(pool, endpoint(stub), cache=tmp_path) == [*expected[:-1], "a"]
    assert len(stub.asked) == 11
    answers(pool_of("reply=answer 0;"), endpoint(stub, max_tokens=9), cache=tmp_path)
    assert len(stub.asked) == 12  # another request


def test_earlier_runs_count_towards_the_budget_and_their_answers_stay(stub: Stub, tmp_path: Path) -> None:
    pool = pool_of(*(f"reply=answer {at};" for at in range(10)))
    prices = {"m": [0.0, 100.0]}  # 10 tokens out: 0.001 dollars a row; before it is asked, 20 tokens: 0.002
    limited = endpoint(stub, prices=prices, max_tokens=20, max_cost=0.0055, concurrency=1)
    for _ in range(2):
        assert answers(pool, limited, cache=tmp_path) == [*(f"answer {at}" for at in range(4)), *[None] * 6]
        assert len(stub.asked) == 4
    more = endpoint(stub, prices=prices, max_tokens=20, max_cost=0.02)
    assert answers(pool, more, cache=tmp_path) == [f"answer {at}" for at in range(10)]
    assert len(stub.asked) == 10


def test_equal_rows_are_asked_for_once(stub: Stub) -> None:
    assert answers(pool_of("reply=x;", "reply=y;", "reply=x;"), endpoint(stub)) == ["x", "y", "x"]
    assert len(stub.asked) == 2


def test_a_server_that_breaks_down_is_said_and_one_that_never_worked_is_an_error(
    stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    one = endpoint(stub, concurrency=1)
    assert answers(pool_of("reply=first;", "fault=401x9", "reply=third;"), one) == ["first", None, None]
    assert "no new response for 2 of 3 rows (rewrite.endpoint.api_key_env=JUDGE_KEY: the server" in (
        said := capsys.readouterr().err
    )
    assert SECRET not in said
    with pytest.raises(UserError, match=r"rewrite\.endpoint\.api_key_env=JUDGE_KEY: the server refuses the key"):
        answers(pool_of("fault=401x9"), one)


def test_no_rows_need_no_server() -> None:
    assert answers(pool_of(), EndpointConfig(model="m", base_url="http://127.0.0.1:1/v1")) == []


def test_the_command(stub: Stub, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    rows = [f'{{"instruction": "reply=new {at};", "output": "{"word " * at}"}}\n' for at in (1, 2, 3)]
    Path("in.jsonl").write_text("".join(rows))
    monkeypatch.setattr(sys, "argv", [
        "curate", "data.path=in.jsonl", "selection=top_k", "selection.k=1", "rewrite=teacher",
        f"rewrite.endpoint.base_url={stub.url}", "rewrite.endpoint.api_key_env=JUDGE_KEY", "out.path=out.jsonl",
    ])  # fmt: skip
    for _ in range(2):  # the second time from the cache
        main()
    kept = [json.loads(line)["output"] for line in Path("out.jsonl").read_text().splitlines()]
    assert kept == ["new 1", "new 2", "word word word "]
    assert Counter(stub.rows()) == {"reply=new 1;": 1, "reply=new 2;": 1}
    assert "teacher gpt-4o-mini: 2 rows to ask" in capsys.readouterr().err
