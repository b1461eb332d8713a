"""The judge against a server that fails in every way: the right rows get grades, and nothing is paid for twice."""

import csv
import itertools
import math
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from curate import UserError
from curate.__main__ import main
from curate.config import EndpointConfig
from curate.example import column, make_pool
from curate.price import estimate
from curate.scoring import Scores
from curate.scoring.judge import judge
from tests.curate.stub import SECRET, Stub


def pool_of(*outputs: str) -> Dataset:
    return make_pool([{"instruction": "Do it.", "output": output} for output in outputs], source="test")


def endpoint(stub: Stub | None, **options: Any) -> EndpointConfig:
    """Time enough for a busy machine, unless a test is about time."""
    url = {"base_url": stub.url} if stub else {}
    given = {"model": "m", "api_key_env": "JUDGE_KEY", "concurrency": 4, "timeout": 60.0, "max_retries": 1}
    return EndpointConfig.model_validate({**given, **url, **options})


def grades(scores: Scores) -> list[float | None]:
    return [None if math.isnan(value) else value for value in scores.values.tolist()]


def test_what_goes_wrong_once_is_tried_again(stub: Stub, tmp_path: Path) -> None:
    faults = ("408", "409", "429", "500", "503", "cut", "half")
    pool = pool_of("grade=1.5", *(f"fault={fault}x1 grade={at % 5 + 1}" for at, fault in enumerate(faults)))
    expected = [1.5, *(float(at % 5 + 1) for at in range(len(faults)))]
    scores = judge(pool, endpoint(stub), cache=tmp_path)
    assert (grades(scores), scores.reasons) == (expected, {})
    assert Counter(stub.rows()) == {row: 2 if "fault" in row else 1 for row in column(pool, "output")}
    assert (scores.computed, scores.tokens) == (8, 8 * 110)
    again = judge(pool, endpoint(stub), cache=tmp_path)
    assert (grades(again), again.computed, len(stub.asked)) == (expected, 0, 15)


def test_an_answer_that_never_comes_is_asked_for_again(stub: Stub, tmp_path: Path) -> None:
    pool = pool_of("fault=slowx1 grade=2", "grade=3")
    short = endpoint(stub, timeout=3.0, max_retries=0)
    scores = judge(pool, short, cache=tmp_path)
    assert (grades(scores), scores.reasons) == ([None, 3], {0: "no answer in 3 s"})
    assert grades(judge(pool, short, cache=tmp_path)) == [2, 3]
    assert len(stub.asked) == 3


def test_what_goes_on_failing_has_a_reason_and_is_asked_again_by_a_later_run(stub: Stub, tmp_path: Path) -> None:
    faults = ("500", "429", "cut", "half", "malformed", "page", "error", "403", "413")
    pool = pool_of("grade=5", *(f"fault={fault}x99 grade=2" for fault in faults))
    scores = judge(pool, endpoint(stub, max_retries=0), cache=tmp_path)
    assert grades(scores) == [5, *[None] * 9]
    no_completion = "the answer was no chat completion"
    assert scores.reasons == {
        1: "HTTP 500: fault 500 for Bearer ***",
        2: "HTTP 429: fault 429 for Bearer ***",
        3: "the connection was cut",
        4: "the connection was cut",
        5: no_completion,
        6: no_completion,
        7: no_completion,
        8: "HTTP 403: fault 403 for Bearer ***",
        9: "HTTP 413: fault 413 for Bearer ***",
    }
    assert len(stub.asked) == 10
    stub.healed = True
    again = judge(pool, endpoint(stub, max_retries=0), cache=tmp_path)
    assert (grades(again), again.reasons, again.computed) == ([5, *[2] * 9], {}, 9)
    assert Counter(stub.rows()) == {row: 2 if "fault" in row else 1 for row in column(pool, "output")}


def test_a_reply_without_a_grade_is_paid_for_and_kept(stub: Stub, tmp_path: Path) -> None:
    pool = pool_of("reply=I cannot grade this.;", "reply=8/10;", "reply=Score: 4; finish=length", "reply=Score: 3/5.;")
    priced = endpoint(stub, prices={"m": [10, 20]})
    for _ in range(2):
        scores = judge(pool, priced, cache=tmp_path)
        assert grades(scores) == [None, None, None, 3]
        assert scores.reasons == {
            0: "no grade in the reply: 'I cannot grade this.'",
            1: "8/10 is no grade from 1 to 5 in halves: '8/10'",
            2: "the reply was cut in a number; raise scorer.endpoint.max_tokens",
        }
        assert scores.tokens == 4 * 110
        assert scores.dollars == pytest.approx(4 * (100 * 10 + 10 * 20) / 1e6)
    assert len(stub.asked) == 4


def test_a_server_that_counts_no_tokens_is_charged_by_the_estimate(stub: Stub) -> None:
    stub.usage = None
    scores = judge(pool_of("grade=4"), endpoint(stub))
    characters = sum(len(turn["content"]) for turn in stub.asked[0]["messages"])
    assert scores.tokens == math.ceil(characters / 4) + math.ceil(len('{"score": 4.0}') / 4)


def test_the_request(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    judge(pool_of("grade=4", "grade=4"), endpoint(stub, max_tokens=77))  # equal rows are asked for once
    [asked] = stub.asked
    assert (asked["model"], asked["temperature"], asked["max_tokens"]) == ("m", 0, 77)
    assert asked["response_format"]["json_schema"]["schema"]["properties"]["score"]["enum"][:3] == [1, 1.5, 2]
    assert [turn["role"] for turn in asked["messages"]] == ["system", "user"]
    assert stub.keys == {f"Bearer {SECRET}"}
    tokens = math.ceil(sum(len(turn["content"]) for turn in asked["messages"]) / 4)
    assert capsys.readouterr().err == (
        f"judge m: 1 rows to ask, about {tokens} tokens in and at most 77 out, "
        "at a price that scorer.endpoint.prices does not name\n"
    )


def test_the_key_is_that_of_the_named_variable_alone(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    judge(pool_of("grade=4"), endpoint(stub, api_key_env="NO_SUCH_KEY"))  # a local server may do without
    assert stub.keys == {"Bearer none"}


def test_scores_depend_on_the_request(stub: Stub, tmp_path: Path) -> None:
    pool = pool_of("grade=4")
    for changes in ({}, {"model": "n"}, {"base_url": stub.url + "/"}, {"max_tokens": 9}, {"concurrency": 1}):
        judge(pool, endpoint(stub, **changes), cache=tmp_path)
    assert [(one["model"], one["max_tokens"]) for one in stub.asked] == [("m", 128), ("n", 128), ("m", 9)]
    judge(pool, endpoint(stub, base_url=stub.url.replace("127.0.0.1", "localhost")), cache=tmp_path)
    assert len(stub.asked) == 4


@pytest.mark.parametrize("mode", ["auto", "always", "never"])
def test_a_server_that_takes_no_schema(stub: Stub, mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    stub.takes_schema = False
    pool = pool_of(*(f"reply=Score: {at % 5 + 1}; {at}" for at in range(12)))
    scores = judge(pool, endpoint(stub, json_schema=mode, concurrency=2, max_retries=0))
    with_schema = sum("response_format" in body for body in stub.asked)
    if mode == "always":
        assert set(scores.reasons.values()) == {"HTTP 400: response_format is not supported"}
        assert (with_schema, len(stub.asked)) == (12, 12)
    else:
        assert grades(scores) == [at % 5 + 1 for at in range(12)]
        assert len(stub.asked) - with_schema == 12
        assert 1 <= with_schema <= 2 if mode == "auto" else with_schema == 0  # those that were first under way
    said = "m takes no JSON schema (HTTP 400: response_format is not supported): none is sent"
    assert capsys.readouterr().err.count(said) == (mode == "auto")


def test_a_row_that_the_server_refuses_says_nothing_about_the_schema(stub: Stub) -> None:
    pool = pool_of("fault=400x99 grade=1", "grade=2", "grade=3")
    scores = judge(pool, endpoint(stub, concurrency=1))
    assert (grades(scores), scores.reasons) == ([None, 2, 3], {0: "HTTP 400: fault 400 for Bearer ***"})
    assert ["response_format" in body for body in stub.asked] == [True, False, True, True]


def test_a_model_that_renames_the_limit_and_refuses_a_temperature(
    stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.refuses = {
        "max_tokens": "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        "temperature": "'temperature' does not support 0 with this model.",
    }
    pool = pool_of(*(f"grade=3 {at}" for at in range(6)))
    scores = judge(pool, endpoint(stub, concurrency=1, max_tokens=77, max_retries=0))
    assert (grades(scores), scores.reasons) == ([3] * 6, {})
    sent = [{"max_tokens", "max_completion_tokens", "temperature"} & set(body) for body in stub.asked]
    learnt = [{"max_tokens", "temperature"}, {"max_completion_tokens", "temperature"}]
    assert sent == [*learnt, *[{"max_completion_tokens"}] * 6]  # what the first row taught stays known
    assert {body.get("max_completion_tokens") for body in stub.asked[1:]} == {77}
    assert all("response_format" in body for body in stub.asked)
    said = capsys.readouterr().err
    assert said.count("m takes no max_tokens (HTTP 400: 'max_tokens' is not") == 1
    assert said.count("m takes no temperature of 0 (HTTP 400: 'temp") == 1


def test_a_row_that_is_refused_by_a_parameters_name_teaches_nothing(stub: Stub) -> None:
    pool = pool_of("fault=400x99 grade=1 temperature max_tokens", "grade=2")
    scores = judge(pool, endpoint(stub, concurrency=1, json_schema="never"))
    assert grades(scores) == [None, 2]
    stub.refuses = {"max_completion_tokens": "max_tokens is too large", "max_tokens": "max_tokens is too large"}
    scores = judge(pool_of("grade=4"), endpoint(stub, concurrency=1, json_schema="never"))
    assert scores.reasons == {0: "HTTP 400: max_tokens is too large"}
    assert {"temperature", "max_tokens"} <= set(stub.asked[-2])


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("401", "scorer.endpoint.api_key_env=JUDGE_KEY: the server refuses the key (HTTP 401: fault 401 for Bearer *"),
        ("404", "scorer.endpoint.model=m: not to be had at http://127.0.0.1:"),
        ("402", "scorer.endpoint.model=m: there is no credit left (HTTP 402: "),
    ],
)  # fmt: skip
def test_what_no_row_would_escape_stops_the_run(stub: Stub, tmp_path: Path, fault: str, message: str) -> None:
    pool = pool_of("grade=4", "grade=3", *(f"fault={fault}x99 grade=2 {at}" for at in range(20)))
    with pytest.raises(UserError) as error:
        judge(pool, endpoint(stub, concurrency=1), cache=tmp_path)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    assert error.value.__suppress_context__
    assert len(stub.asked) == 3
    stub.healed = True
    scores = judge(pool, endpoint(stub, concurrency=1), cache=tmp_path)
    assert grades(scores) == [4, 3, *[2] * 20]
    assert len(stub.asked) == 3 + 20  # the two that were paid for are not asked again
    assert SECRET.encode() not in b"".join(path.read_bytes() for path in tmp_path.rglob("*.sqlite*"))


def test_a_server_that_is_not_there(stub: Stub) -> None:
    with Stub() as other:  # a port that nobody has
        gone = other.url
    with pytest.raises(UserError) as error:
        judge(pool_of("grade=4"), endpoint(stub, base_url=gone.replace("//", "//me:pass@"), max_retries=50))
    assert str(error.value).startswith(f"scorer.endpoint.base_url={gone}: cannot be reached (")


def test_a_server_that_goes_away(stub: Stub, tmp_path: Path) -> None:
    def goes(done: int, total: int) -> None:
        if done == 2:
            stub.shutdown()
            stub.server_close()

    pool = pool_of("grade=1", "fault=closex1 grade=2", *(f"grade=3 {at}" for at in range(30)))
    with pytest.raises(UserError, match="cannot be reached"):
        judge(pool, endpoint(stub, concurrency=1, max_retries=0), cache=tmp_path, progress=goes)
    assert len(stub.asked) == 2


def test_a_server_that_fails_time_after_time_is_left(stub: Stub) -> None:
    pool = pool_of(*(f"fault=500x99 grade=2 {at}" for at in range(60)))
    with pytest.raises(
        UserError, match=r"2\d requests in a row failed, the last one as HTTP 500: fault 500 for"
    ) as error:
        judge(pool, endpoint(stub, max_retries=0))
    assert "\n" not in str(error.value)
    assert len(stub.asked) < 30


def test_no_more_is_asked_than_may_be_paid(stub: Stub, tmp_path: Path) -> None:
    pool = pool_of(*(f"grade=2 {at}" for at in range(30)))
    prices = {"m": [0.0, 100.0]}  # 10 tokens out: 0.001 dollars a row; before it is asked, 20 tokens: 0.002
    limited = endpoint(stub, prices=prices, max_tokens=20, max_cost=0.0105)
    message = "scorer.endpoint.max_cost=0.0105: reached after 9 of 30 rows; their scores are kept; raise it to go on"
    with pytest.raises(UserError) as error:
        judge(pool, limited, cache=tmp_path)
    assert str(error.value) == message
    assert len(stub.asked) == 9  # a tenth could have cost 0.002 more
    with pytest.raises(UserError, match="reached after 0 of 21 rows"):
        judge(pool, limited, cache=tmp_path)
    assert len(stub.asked) == 9
    more = endpoint(stub, prices=prices, max_tokens=20, max_cost=0.1)
    scores = judge(pool, more, cache=tmp_path)
    assert grades(scores) == [2] * 30
    assert len(stub.asked) == 30
    assert scores.dollars == pytest.approx(0.03)


def test_what_may_have_been_paid_counts_as_paid(stub: Stub) -> None:
    pool = pool_of(*(f"fault=malformedx99 grade=2 {at}" for at in range(10)))
    limited = endpoint(stub, prices={"m": [0.0, 100.0]}, max_tokens=20, max_cost=0.0105)
    with pytest.raises(UserError, match="reached after 0 of 10 rows"):
        judge(pool, limited)
    assert len(stub.asked) == 5


def test_so_many_requests_are_under_way_and_no_more(stub: Stub) -> None:
    stub.together = threading.Barrier(3)  # nobody is answered before three have asked
    scores = judge(pool_of(*(f"grade=3 {at}" for at in range(9))), endpoint(stub, concurrency=3, max_retries=0))
    assert grades(scores) == [3] * 9
    assert stub.most == 3


def test_replies_are_kept_as_they_come(stub: Stub, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    pool = pool_of(*(f"grade={at % 5 + 1} {at}" for at in range(10)))
    with pytest.raises(KeyboardInterrupt):
        judge(pool, endpoint(stub, concurrency=1), cache=tmp_path, progress=stop)
    stub.asked.clear()
    scores = judge(pool, endpoint(stub, concurrency=1), cache=tmp_path)
    assert grades(scores) == [at % 5 + 1 for at in range(10)]
    assert set(stub.rows()).isdisjoint(column(pool, "output")[:3])


def test_known_scores_are_not_asked_for_and_not_kept(stub: Stub, tmp_path: Path) -> None:
    pool = pool_of("grade=1", "grade=2", "grade=3")
    known = {column(pool, "id")[1]: 4.5}
    scores = judge(pool, endpoint(stub), cache=tmp_path, known=known)
    assert (grades(scores), sorted(stub.rows())) == ([1, 4.5, 3], ["grade=1", "grade=3"])
    assert grades(judge(pool, endpoint(stub), cache=tmp_path)) == [1, 2, 3]
    everything = dict(zip(column(pool, "id"), itertools.repeat(5.0)))
    assert grades(judge(pool, endpoint(None), known=everything)) == [5, 5, 5]


def test_the_command(stub: Stub, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    rows = [f'{{"instruction": "q", "output": "grade={at} or so"}}\n' for at in (1, 2, 3, 4)]
    Path("in.jsonl").write_text("".join(rows))
    Path("paid.csv").write_text("instruction,input,output,score\nq,,grade=1 or so,4.5\n")
    monkeypatch.setattr(sys, "argv", [
        "curate", "data.path=in.jsonl", "scorer=judge", "scorer.endpoint.model=m", "scorer.endpoint.prices={m:[1,2]}",
        f"scorer.endpoint.base_url={stub.url}", "scorer.endpoint.api_key_env=JUDGE_KEY", "score.import=paid.csv",
        "selection=threshold", "selection.threshold=3.5", "out.path=out.csv",
    ])  # fmt: skip
    main()
    said = capsys.readouterr()
    assert said.out == "4 rows in = 2 kept + 2 rejected + 0 set aside\n"
    assert "score.import=paid.csv: scores of 1 of 4 rows\n" in said.err
    assert "judge m: 3 rows to ask, about " in said.err
    assert len(stub.asked) == 3
    with Path("out.csv").open(newline="") as file:
        assert [(row["output"], row["score"]) for row in csv.DictReader(file)] == [
            ("grade=1 or so", "4.5"),
            ("grade=4 or so", "4.0"),
        ]


# --- without openai -------------------------------------------------------------------------------------------------


def test_without_openai(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    monkeypatch.setenv("JUDGE_KEY", SECRET)
    with pytest.raises(UserError, match=r"needs the package openai; pip install -e '.\[judge\]'"):
        judge(pool_of("grade=4"), endpoint(None))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {},
            "scorer.endpoint.api_key_env=NO_SUCH_KEY: is not set; export it with the key of https://api.openai.com/v1",
        ),
        ({"base_url": "https://example.com/v1"}, "export it with the key of https://example.com/v1"),
        ({"base_url": "localhost:8000/v1"}, "scorer.endpoint.base_url=localhost:8000/v1: is no address; write http://"),
        ({"base_url": "http:///v1"}, "scorer.endpoint.base_url=http:///v1: is no address"),
    ],
)
def test_an_endpoint_that_cannot_be_asked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        judge(pool_of("grade=4"), endpoint(None, api_key_env="NO_SUCH_KEY", **changes))
    assert message in str(error.value)


def test_the_estimate() -> None:
    priced = endpoint(None, prices={"m": [2.0, 10.0]}, max_tokens=50)
    assert estimate(priced, "k", [100, 300, 600]) == (
        "3 rows to ask, about 1000 tokens in and at most 150 out, at most $0.0035"
    )
