"""Better responses from a language model, for rows that are to be repaired."""

import sys
from contextlib import closing

from datasets import Dataset

from curate.config import EndpointConfig
from curate.endpoint import BudgetSpent, Messages, connect, estimate, spoken, tokens_in
from curate.errors import UserError
from curate.example import column
from curate.progress import Progress

_KEY = "rewrite.endpoint"  # the config group to name in an error
SYSTEM = """\
You write responses that a language model will learn from. Do what the user asks, completely and in as few words as \
that takes. Say only what you know to be right. Begin with the response itself: no greeting, no remark about the task, \
nothing after it."""


def answers(pool: Dataset, endpoint: EndpointConfig, *, progress: Progress | None = None) -> list[str | None]:
    """A new response for each row, None where none came, or one that is empty or was cut at `max_tokens`.

    The old response is not shown: it is thought to be wrong, and would be copied. What is to be asked and what it may
    cost is printed before anything is spent. When `max_cost` is reached or the server breaks down, what was paid for
    is returned, and how many rows have none is printed.

    Raises UserError if the server cannot be used from the start.
    """
    found: list[str | None] = [None] * len(pool)
    if not found:
        return found
    asked = [_request(*row) for row in zip(column(pool, "instruction"), column(pool, "input"), strict=True)]
    print(f"teacher {endpoint.model}: {estimate(endpoint, _KEY, list(map(tokens_in, asked)))}", file=sys.stderr)
    done, why = 0, ""
    try:
        with connect(endpoint, key=_KEY) as server, closing(server.ask(asked)) as replies:
            for reply in replies:
                done += 1
                if reply.failure is None and not reply.cut:
                    found[reply.at] = spoken(reply.text) or None
                if progress is not None:
                    progress(done, len(asked))
    except BudgetSpent:
        why = f" ({_KEY}.max_cost={endpoint.max_cost:g} is reached)"
    except UserError as error:
        if not any(found):
            raise
        why = f" ({error})"
    if missing := found.count(None):
        print(f"teacher {endpoint.model}: no new response for {missing} of {len(found)} rows{why}", file=sys.stderr)
    return found


def _request(instruction: str, input: str) -> Messages:
    asked = f"{instruction}\n\n{input}" if input else instruction
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": asked}]
