"""A language model as the judge: a grade from 1 to 5 for each response, as AlpaGasus has it (arXiv:2307.08701)."""

import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from datasets import Dataset

from curate.config import EndpointConfig
from curate.endpoint import BudgetSpent, Reply, connect
from curate.errors import UserError
from curate.example import column, digest
from curate.price import Messages, asked_of, estimate, tokens_in
from curate.progress import Progress
from curate.scoring.cache import Batch, Portions, Scores, cached_scores
from curate.scoring.grading import SCHEMA, parse_grade, request

_KEY = "scorer.endpoint"  # the config group to name in an error


def judge(
    pool: Dataset,
    endpoint: EndpointConfig,
    *,
    cache: Path | None = None,
    known: Mapping[str, float] | None = None,
    progress: Progress | None = None,
) -> Scores:
    """(rows,) grades from 1 to 5 by the model at the endpoint; `known` grades by row id are not asked for.

    See `ask_all` for what is kept and what is raised; `max_cost` counts what the rows of this pool have cost in
    earlier runs.
    """
    columns = (column(pool, name) for name in ("instruction", "input", "output"))
    requests = [request(*row) for row in zip(*columns, strict=True)]
    given = None
    if known:
        keys = map(_content_key, requests)
        given = {key: known[id] for key, id in zip(keys, column(pool, "id"), strict=True) if id in known}
    return ask_all(
        requests, endpoint, name="judge", key=_KEY, schema=SCHEMA, read=_grade, cache=cache, known=given,
        progress=progress,
    )  # fmt: skip


def ask_all(
    requests: Sequence[Messages],
    endpoint: EndpointConfig,
    *,
    name: str,
    key: str,
    schema: Mapping[str, Any],
    read: Callable[[Reply], float],
    cache: Path | None = None,
    known: Mapping[str, float] | None = None,
    progress: Progress | None = None,
) -> Scores:
    """(requests,) numbers that `read` finds in the replies of the model at the endpoint; equal requests are one.

    What is to be asked and what it may cost is printed before anything is spent. A reply is kept as soon as it came,
    under its request; one in which `read` finds nothing too, with the reason (its ValueError), since it was paid for.
    A request that failed after all retries has a reason and is asked again by a later run.

    Args:
        name: of what is asked, under which the replies are kept, beside the model and the schema.
        key: the config key of the endpoint, to name in an error.
        known: numbers by the content key of a request, which are not asked for.

    Raises UserError if the server cannot be used, or once another request could exceed `max_cost`, which counts what
    these requests have cost in earlier runs.
    """
    missing, earlier = 0, 0.0

    def before(rows: Sequence[int], spent: float) -> None:
        nonlocal missing, earlier
        missing, earlier = len(rows), spent
        tokens = [tokens_in(requests[row]) for row in rows]
        print(f"{name} {endpoint.model}: {estimate(endpoint, key, tokens)}", file=sys.stderr)

    def compute(portions: Portions) -> Iterator[Batch]:
        answered, started = 0, time.perf_counter()
        with connect(endpoint, key=key, schema=schema, spent=earlier) as server:
            for rows in portions:
                try:
                    with closing(server.ask([requests[row] for row in rows])) as replies:
                        for reply in replies:
                            now = time.perf_counter()
                            yield _batch(rows[reply.at], reply, now - started, read)
                            answered, started = answered + (reply.failure is None), now
                except BudgetSpent:
                    raise UserError(
                        f"{key}.max_cost={endpoint.max_cost:g}: reached after {answered} of {missing} rows; "
                        "their scores are kept; raise it to go on"
                    ) from None

    keys = [_content_key(one) for one in requests]
    kept = f"{name}-{asked_of(endpoint, schema)}"
    return cached_scores(cache, kept, keys, compute, known=known, before=before, progress=progress)


def _content_key(messages: Messages) -> str:
    return digest(*(turn["content"] for turn in messages))


def _batch(row: int, reply: Reply, seconds: float, read: Callable[[Reply], float]) -> Batch:
    if reply.failure is not None:
        return Batch([row], [math.nan], seconds, {row: reply.failure}, keep=False)
    value, reasons = math.nan, {}
    try:
        value = read(reply)
    except ValueError as error:
        reasons = {row: str(error)}
    return Batch([row], [value], seconds, reasons, reply.tokens, reply.dollars)


def _grade(reply: Reply) -> float:
    if reply.cut and re.search(r"[0-9][.,]?\s*$", reply.text):
        raise ValueError("the reply was cut in a number; raise scorer.endpoint.max_tokens")
    return parse_grade(reply.text)
