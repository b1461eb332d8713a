"""Better responses from a language model, for rows that are to be repaired."""

import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from datasets import Dataset

from curate.config import EndpointConfig
from curate.endpoint import BudgetSpent, Reply, connect, spoken
from curate.errors import UserError
from curate.example import column, digest
from curate.price import Messages, asked_of, estimate, tokens_in
from curate.progress import Progress
from curate.scoring.cache import Batch, Portions, cached_scores

_KEY = "rewrite.endpoint"  # the config group to name in an error
_ANSWERED = 1.0
SYSTEM = """\
You write responses that a language model will learn from. Do what the user asks, completely and in as few words as \
that takes. Say only what you know to be right. Begin with the response itself: no greeting, no remark about the task, \
nothing after it."""


def answers(
    pool: Dataset, endpoint: EndpointConfig, *, cache: Path | None = None, progress: Progress | None = None
) -> list[str | None]:
    """A new response for each row, None where none came, or one that is empty or was cut at `max_tokens`.

    The old response is not shown: it is thought to be wrong, and would be copied. What is to be asked and what it may
    cost is printed before anything is spent. A reply is kept as soon as it came, under its request, in
    `<cache>/scores/teacher-*.sqlite`, so that no later run pays for it again; a row that failed is asked again. When
    `max_cost` is reached, which counts what these rows have cost in earlier runs, or the server breaks down, what was
    paid for is returned, and how many rows have none is printed.

    Raises UserError if the server cannot be used from the start, or the cache cannot be written.
    """
    requests = [_request(*row) for row in zip(column(pool, "instruction"), column(pool, "input"), strict=True)]
    earlier = 0.0
    failed: BudgetSpent | UserError | None = None

    def before(rows: Sequence[int], spent: float) -> None:
        nonlocal earlier
        earlier = spent
        tokens = [tokens_in(requests[row]) for row in rows]
        print(f"teacher {endpoint.model}: {estimate(endpoint, _KEY, tokens)}", file=sys.stderr)

    def compute(portions: Portions) -> Iterator[Batch]:
        nonlocal failed
        left: set[int] = set()
        started = time.perf_counter()
        try:
            with connect(endpoint, key=_KEY, spent=earlier) as server:
                for rows in portions:
                    left = set(rows)
                    with closing(server.ask([requests[row] for row in rows])) as replies:
                        for reply in replies:
                            now = time.perf_counter()
                            left.remove(rows[reply.at])
                            yield _batch(rows[reply.at], reply, now - started)
                            started = now
        except (BudgetSpent, UserError) as error:
            failed = error
        for rows in [sorted(left), *portions] if failed else []:
            yield Batch(rows, [math.nan] * len(rows), 0.0, keep=False)

    keys = [digest(*(turn["content"] for turn in request)) for request in requests]
    told = cached_scores(cache, f"teacher-{asked_of(endpoint)}", keys, compute, before=before, progress=progress)
    found = [told.reasons.get(row) if told.values[row] == _ANSWERED else None for row in range(len(pool))]
    if isinstance(failed, UserError) and not any(found):
        raise failed
    why = ""
    if failed is not None:
        spent = isinstance(failed, BudgetSpent)
        why = f" ({_KEY}.max_cost={endpoint.max_cost:g} is reached)" if spent else f" ({failed})"
    if missing := found.count(None):
        print(f"teacher {endpoint.model}: no new response for {missing} of {len(found)} rows{why}", file=sys.stderr)
    return found


def _batch(row: int, reply: Reply, seconds: float) -> Batch:
    """The cache of scores keeps a number and a text: here the text is the answer, and the number says that it is."""
    if reply.failure is not None:
        return Batch([row], [math.nan], seconds, {row: reply.failure}, keep=False)
    text = "" if reply.cut else spoken(reply.text)
    number = _ANSWERED if text else math.nan
    return Batch([row], [number], seconds, {row: text or "cut or empty"}, reply.tokens, reply.dollars)


def _request(instruction: str, input: str) -> Messages:
    asked = f"{instruction}\n\n{input}" if input else instruction
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": asked}]
