"""What is asked of which language model, and what it costs."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from curate.config import EndpointConfig
from curate.example import digest

Messages = list[dict[str, str]]  # a conversation: role and content of each turn

OPENAI = "https://api.openai.com/v1"  # where no base_url is given; the environment has no say in it


def base_url(config: EndpointConfig) -> str:
    return (config.base_url or OPENAI).rstrip("/")


def asked_of(config: EndpointConfig, schema: Mapping[str, Any] | None = None) -> str:
    """Names all that a request holds beside its messages: replies are kept under it."""
    sampling = {"temperature": 0, "max_tokens": config.max_tokens, "json_schema": config.json_schema}
    content = digest(config.model, base_url(config), json.dumps([sampling, schema], sort_keys=True))
    return f"{re.sub(r'[^A-Za-z0-9.-]+', '--', config.model)[:80]}-{content}"


def tokens_in(messages: Messages) -> int:
    """An estimate: a token for every four bytes."""
    return math.ceil(sum(len(turn["content"].encode()) for turn in messages) / 4)


def price(config: EndpointConfig, tokens_in: int, tokens_out: int) -> float:
    """Dollars by the config's table; 0 for a model that is not in it."""
    dollars_in, dollars_out = (config.prices or {}).get(config.model, (0.0, 0.0))
    return (tokens_in * dollars_in + tokens_out * dollars_out) / 1e6


def estimate(config: EndpointConfig, key: str, tokens: Sequence[int]) -> str:
    """What requests of so many tokens may cost, as part of a sentence; `key` is where the prices stand."""
    cost = f"at most ${price(config, sum(tokens), len(tokens) * config.max_tokens):.4f}"
    if config.model not in (config.prices or {}):
        cost = f"at a price that {key}.prices does not name"
    most_out = len(tokens) * config.max_tokens
    return f"{len(tokens)} rows to ask, about {sum(tokens)} tokens in and at most {most_out} out, {cost}"
