"""A server that speaks OpenAI's chat protocol and fails as the rows of the test ask it to.

A row's response says what becomes of its request: `grade=4` is the score in the answer, `reply=...;` the whole of it;
`fault=500x2` lets the first two tries fail: with that HTTP status, or by `cut` (no answer), `half` (an answer that ends
early), `slow` (none until the test is over), `malformed` (no JSON), `page` (HTML), `error` (200 without an answer).
"""

import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "sk-not-for-your-eyes"  # the API key of the tests


class Stub(ThreadingHTTPServer):
    """`asked` holds the body of every request for an answer, `keys` the authorisation it came with."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.says: Callable[[str], str] | None = None  # the answer to a message, where the message does not hold it
        self.healed = False  # no fault any more
        self.takes_schema = True
        self.refuses: dict[str, str] = {}  # a parameter that is not taken -> what is said of it
        self.usage: dict[str, int] | None = {"prompt_tokens": 100, "completion_tokens": 10}
        self.together: threading.Barrier | None = None  # answers wait for each other here
        self.most = 0  # requests that were under way at a time
        self.lock = threading.Lock()
        self.over = threading.Event()
        self._under_way = 0
        self._tries: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def rows(self) -> list[str]:
        """The responses that were to be graded, request by request."""
        return [_response(body) for body in self.asked]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is part of the test."""

    def enter(self, body: dict[str, Any], key: str | None) -> int:
        """Which try of this row it is, from 0."""
        with self.lock:
            self.asked.append(body)
            self.keys.add(key)
            self._under_way += 1
            self.most = max(self.most, self._under_way)
            row = _response(body)
            self._tries[row] += 1
            return self._tries[row] - 1

    def leave(self) -> None:
        with self.lock:
            self._under_way -= 1


def _response(body: dict[str, Any]) -> str:
    content = body["messages"][1]["content"]
    found = re.search(r"(?s)\[\[BEGIN RESPONSE \w+]]\n(.*)\n\[\[END", content)
    return found[1] if found else content  # what a teacher is asked stands between no markers


class _Handler(BaseHTTPRequestHandler):
    server: Stub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._send(404, {"error": {"message": "this server lists no models"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers["Authorization"]
        tried = self.server.enter(body, key)
        try:
            if self.server.together is not None:
                self.server.together.wait(timeout=60)
            self._answer(body, tried, key)
        finally:
            self.server.leave()

    def _answer(self, body: dict[str, Any], tried: int, key: str) -> None:
        row = _response(body)
        fault = re.search(r"fault=(\w+?)x(\d+)", row)
        if "response_format" in body and not self.server.takes_schema:
            self._send(400, {"error": {"message": "response_format is not supported"}})
        elif refused := [said for name, said in self.server.refuses.items() if name in body]:
            self._send(400, {"error": {"message": refused[0], "code": "unsupported_parameter"}})
        elif fault and tried < int(fault[2]) and not self.server.healed:
            self._fail(fault[1], key)
        else:
            reply = re.search(r"(?s)reply=(.*?);", row)
            if self.server.says is not None:
                text = self.server.says(row)
            else:
                text = reply[1] if reply else json.dumps({"score": float(re.search(r"grade=([\d.]+)", row)[1])})  # type: ignore[index]
            cut = "finish=length" in row
            choice = {
                "index": 0,
                "finish_reason": "length" if cut else "stop",
                "message": {"role": "assistant", "content": text},
            }
            usage = {"usage": self.server.usage} if self.server.usage else {}
            self._send(200, {"id": "1", "object": "chat.completion", "choices": [choice], **usage})

    def _fail(self, fault: str, key: str) -> None:
        if fault == "slow":
            self.server.over.wait(60)
        elif fault in ("cut", "close"):
            self.close_connection = True
            self.connection.close()
        elif fault in ("half", "malformed", "page"):
            body = b"<html>Welcome</html>" if fault == "page" else b'{"choices": [{"message"'
            self.send_response(200)
            self.send_header("Content-Type", "text/html" if fault == "page" else "application/json")
            self.send_header("Content-Length", str(len(body) + 100 * (fault == "half")))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True
        elif fault == "error":
            self._send(200, {"error": {"message": "the model is asleep"}})
        else:
            code = {"404": "model_not_found", "402": "insufficient_quota"}.get(fault)
            self._send(int(fault), {"error": {"message": f"fault {fault} for\n{key}", "code": code}})

    def _send(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(data)
