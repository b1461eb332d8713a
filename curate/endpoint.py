"""A language model behind OpenAI's chat protocol: asked many things at once, with retries, within a budget.

Needs `openai` (the extra `judge`), which is imported when something is asked. The API key is read from the environment
and taken out of every text that leaves this module.
"""

import asyncio
import ipaddress
import json
import math
import os
import re
import sys
from collections import deque
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from curate.config import EndpointConfig
from curate.errors import UserError
from curate.price import Messages, base_url, price, tokens_in

_GIVE_UP = 20  # failures in a row after which a server is taken for broken
_REFUSALS = (400, 422)  # what servers answer to a parameter that they do not know
_UNKNOWN = {  # a parameter that not every model takes: what is said when a request without it was answered
    "max_tokens": ("max_tokens", "max_completion_tokens is sent"),
    "temperature": ("temperature of 0", "it answers at its own, and not the same each time"),
    "response_format": ("JSON schema", "none is sent"),
}
_NO_CREDIT = (402, "insufficient_quota")
_NOT_THERE = (404, 405, "model_not_found")
_UNREACHABLE = ("ConnectError", "ConnectTimeout", "ProxyError")  # of httpx; openai keeps them as the cause of its own


class BudgetSpent(Exception):
    """One more request could cost more than `max_cost` allows; all that was asked has been answered."""


@dataclass(frozen=True)
class Reply:
    """The answer to request number `at`, or why there is none for now (`failure`); what it cost.

    `cut` says that the answer was longer than `max_tokens`.
    """

    at: int
    text: str = ""
    failure: str | None = None
    cut: bool = False
    tokens: int = 0
    dollars: float = 0.0


def spoken(text: str) -> str:
    """A reply without the thoughts that some models put before it in <think> tags."""
    return re.sub(r"(?s)<think>.*?(?:</think>|$)", "", text).strip()


@contextmanager
def connect(
    config: EndpointConfig, *, key: str, schema: Mapping[str, Any] | None = None, spent: float = 0.0
) -> Iterator["Server"]:
    """A server to ask. `schema` is the JSON schema of its answers, `spent` what counts towards `max_cost` already.

    Raises UserError, which names keys below the config key `key`, if there is no `openai`, no API key or no server.
    """
    url = base_url(config)
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise UserError(f"{key}.base_url={url}: is no address; write http://HOST:PORT/v1")
    secret = os.environ.get(config.api_key_env, "").strip()
    if not secret and not _is_local(url):
        raise UserError(f"{key}.api_key_env={config.api_key_env}: is not set; export it with the key of {_shown(url)}")
    try:
        import openai
    except ImportError:
        raise UserError(f"{key}.model={config.model}: needs the package openai; pip install -e '.[judge]'") from None
    with asyncio.Runner() as runner:
        client = openai.AsyncOpenAI(
            api_key=secret or "none", base_url=url, timeout=config.timeout, max_retries=config.max_retries
        )
        server = Server(config, key, None if config.json_schema == "never" else schema, spent, runner, client, secret)
        try:
            runner.run(server.reach())
            yield server
        finally:
            runner.run(client.close())


@dataclass
class Server:
    """A connection from `connect`."""

    config: EndpointConfig
    key: str  # the config key to name in an error
    schema: Mapping[str, Any] | None  # None: none is sent
    spent: float  # dollars
    runner: asyncio.Runner
    client: Any
    secret: str
    failed: int = 0  # in a row
    without: frozenset[str] = frozenset()  # parameters that the model is known not to take

    def ask(self, requests: Sequence[Messages]) -> Generator[Reply, None, None]:
        """One reply for each request, as they come, `concurrency` at a time, at temperature 0 if the model takes one.

        Raises UserError as soon as the server cannot be reached, refuses the key, does not know the model, or fails
        time after time; BudgetSpent when the money is gone and all that was paid for has been handed out.
        """
        stream = self._stream(requests)

        async def step() -> Reply | None:
            return await anext(stream, None)

        async def end() -> None:
            await stream.aclose()

        try:
            while (reply := self.runner.run(step())) is not None:
                yield reply
        finally:
            self.runner.run(end())

    async def reach(self) -> None:
        """Raises UserError if nothing answers at the address; one free request."""
        from openai import APIConnectionError, OpenAIError

        try:
            await self.client.with_options(max_retries=0).models.with_raw_response.list()
        except APIConnectionError as error:
            if _is_unreachable(error):
                raise self._unreachable(error) from None
        except OpenAIError:
            pass  # there is a server; not all of them list their models

    async def _stream(self, requests: Sequence[Messages]) -> AsyncGenerator[Reply, None]:
        limit = math.inf if self.config.max_cost is None else self.config.max_cost
        waiting = deque(enumerate(requests))
        pending: dict[asyncio.Task[Reply], float] = {}  # what each may cost
        try:
            while waiting or pending:
                while waiting and len(pending) < self.config.concurrency:
                    most = price(self.config, tokens_in(waiting[0][1]), self.config.max_tokens)
                    if self.spent + sum(pending.values()) + most > limit:
                        break
                    pending[asyncio.create_task(self._one(*waiting.popleft(), most))] = most
                if not pending:
                    raise BudgetSpent
                done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                fatal: BaseException | None = None
                for task in done:
                    del pending[task]
                    if error := task.exception():
                        fatal = error
                        continue
                    reply = task.result()
                    self.failed = self.failed + 1 if reply.failure else 0
                    if self.failed >= max(_GIVE_UP, 2 * self.config.concurrency):
                        fatal = self._error(
                            "model", f"{self.failed} requests in a row failed, the last one as {reply.failure}"
                            "; mend it and run again, what came back is kept"
                        )  # fmt: skip
                    yield reply
                if fatal is not None:
                    raise fatal
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def _one(self, at: int, messages: Messages, most: float) -> Reply:
        """The reply to one request, which may cost `most`. What is known neither to be paid nor unpaid counts so."""
        import openai

        try:
            made = await self._answer(messages)
        except openai.APIConnectionError as error:
            if _is_unreachable(error):
                raise self._unreachable(error) from None
            self.spent += most
            slow = isinstance(error, openai.APITimeoutError)
            return Reply(at, failure=f"no answer in {self.config.timeout:g} s" if slow else "the connection was cut")
        except openai.APIStatusError as error:
            if fatal := self._fatal(error):
                raise fatal from None
            return Reply(at, failure=self._said(error))
        except (openai.APIError, json.JSONDecodeError, UnicodeDecodeError):
            made = None
        choices: Any = getattr(made, "choices", None)
        message = getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
        if message is None:
            self.spent += most
            return Reply(at, failure="the answer was no chat completion")
        text = getattr(message, "content", None) or getattr(message, "refusal", None) or ""
        text, cut = self._clean(str(text)), getattr(choices[0], "finish_reason", None) == "length"
        usage = getattr(made, "usage", None)
        paid_in = getattr(usage, "prompt_tokens", None) or tokens_in(messages)
        paid_out = getattr(usage, "completion_tokens", None) or math.ceil(len(text.encode()) / 4)
        dollars = price(self.config, paid_in, paid_out)
        self.spent += dollars
        return Reply(at, text, None, cut, paid_in + paid_out, dollars)

    async def _answer(self, messages: Messages) -> Any:
        """If it is a parameter that the model refuses, this and all later answers are without it."""
        from openai import APIStatusError

        without, refusals = self.without, {}
        while True:
            try:
                made = await self._create(messages, without)
                break
            except APIStatusError as error:
                name = self._refused(error, without)
                if name is None:
                    raise
                without |= {name}
                refusals[name] = self._said(error)
        for name, said in refusals.items():
            if name not in self.without:
                what, so = _UNKNOWN[name]
                print(f"{self.config.model} takes no {what} ({said}): {so}", file=sys.stderr)
        self.without |= without
        return made

    def _refused(self, error: Any, without: Set[str]) -> str | None:
        """The parameter that may be why, named by the error or else the schema; None if nothing is left to try."""
        if error.status_code not in _REFUSALS:
            return None
        told = f"{error.param} {self._said(error)}"
        names = [name for name in ("max_tokens", "temperature") if name in told]
        if self.schema is not None and self.config.json_schema != "always":
            names.append("response_format")
        return next((name for name in names if name not in without), None)

    async def _create(self, messages: Messages, without: Set[str]) -> Any:
        limit = "max_completion_tokens" if "max_tokens" in without else "max_tokens"
        options: dict[str, Any] = {limit: self.config.max_tokens}
        if "temperature" not in without:
            options["temperature"] = 0
        if self.schema is not None and "response_format" not in without:
            format = {"name": "answer", "strict": True, "schema": dict(self.schema)}
            options["response_format"] = {"type": "json_schema", "json_schema": format}
        return await self.client.chat.completions.create(model=self.config.model, messages=messages, **options)

    def _fatal(self, error: Any) -> UserError | None:
        """What no other request would escape."""
        if error.status_code == 401:
            return self._error("api_key_env", f"the server refuses the key ({self._said(error)}); set the right one")
        if error.status_code in _NO_CREDIT or error.code in _NO_CREDIT:
            return self._error("model", f"there is no credit left ({self._said(error)}); run again when there is")
        if error.status_code in _NOT_THERE or error.code in _NOT_THERE:
            return self._error(
                "model", f"not to be had at {_shown(base_url(self.config))} ({self._said(error)}); "
                f"correct it or {self.key}.base_url"
            )  # fmt: skip
        return None

    def _unreachable(self, error: Exception) -> UserError:
        why = self._clean(str(error.__cause__) or str(error))
        return self._error("base_url", f"cannot be reached ({why}); start the server or correct it")

    def _error(self, name: str, what: str) -> UserError:
        value = _shown(base_url(self.config)) if name == "base_url" else getattr(self.config, name)
        return UserError(" ".join(f"{self.key}.{name}={value}: {what}".split()))

    def _said(self, error: Any) -> str:
        body = error.body
        told = body.get("message") if isinstance(body, dict) else body
        text = " ".join(self._clean(str(told or "")).split())
        return f"HTTP {error.status_code}" + f": {text[:200]}" * bool(text)

    def _clean(self, text: str) -> str:
        # a dummy such as "x" is no secret, and stands in many texts
        return text.replace(self.secret, "***") if len(self.secret) >= 8 else text


def _is_unreachable(error: BaseException) -> bool:
    return type(error.__cause__).__name__ in _UNREACHABLE


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".localhost"))


def _shown(url: str) -> str:
    """The address without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
