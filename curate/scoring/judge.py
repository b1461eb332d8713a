"""A language model as the judge: a grade from 1 to 5 for each response, as AlpaGasus has it (arXiv:2307.08701)."""

import math
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

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

    What is to be asked and what it may cost is printed before anything is spent. A reply is kept as soon as it came,
    under its request; one that holds no grade too, with the reason, since it was paid for. A row that failed after all
    retries has a reason and is asked again by a later run.

    Raises UserError if the server cannot be used, or once another request could exceed `max_cost`, which counts what
    the rows of this pool have cost in earlier runs.
    """
    instructions, inputs, outputs = (column(pool, name) for name in ("instruction", "input", "output"))
    missing, earlier = 0, 0.0

    def messages(row: int) -> Messages:
        return request(instructions[row], inputs[row], outputs[row])

    def before(rows: Sequence[int], spent: float) -> None:
        nonlocal missing, earlier
        missing, earlier = len(rows), spent
        tokens = [tokens_in(messages(row)) for row in rows]
        print(f"judge {endpoint.model}: {estimate(endpoint, _KEY, tokens)}", file=sys.stderr)

    def compute(portions: Portions) -> Iterator[Batch]:
        answered, started = 0, time.perf_counter()
        with connect(endpoint, key=_KEY, schema=SCHEMA, spent=earlier) as server:
            for rows in portions:
                try:
                    with closing(server.ask([messages(row) for row in rows])) as replies:
                        for reply in replies:
                            now = time.perf_counter()
                            yield _batch(rows[reply.at], reply, now - started)
                            answered, started = answered + (reply.failure is None), now
                except BudgetSpent:
                    raise UserError(
                        f"{_KEY}.max_cost={endpoint.max_cost:g}: reached after {answered} of {missing} rows; "
                        "their scores are kept; raise it to go on"
                    ) from None

    keys = [digest(*(turn["content"] for turn in messages(row))) for row in range(len(pool))]
    ids = column(pool, "id")
    given = {key: known[id] for key, id in zip(keys, ids, strict=True) if id in known} if known else None
    return cached_scores(
        cache, f"judge-{asked_of(endpoint, SCHEMA)}", keys, compute, known=given, before=before, progress=progress
    )


def _batch(row: int, reply: Reply, seconds: float) -> Batch:
    if reply.failure is not None:
        return Batch([row], [math.nan], seconds, {row: reply.failure}, keep=False)
    grade, reasons = math.nan, {}
    try:
        if reply.cut and re.search(r"[0-9][.,]?\s*$", reply.text):
            raise ValueError("the reply was cut in a number; raise scorer.endpoint.max_tokens")
        grade = parse_grade(reply.text)
    except ValueError as error:
        reasons = {row: str(error)}
    return Batch([row], [grade], seconds, reasons, reply.tokens, reply.dollars)
