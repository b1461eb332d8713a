"""Suites of running text: held-out stories, facts of the world to complete, and what a model writes by itself."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from curate import UserError, microworld
from curate.config import DataConfig
from curate.text import HELD_OUT, load_stories
from experiments.table import first_crossing

from .build import Suite
from .config import EvaluationConfig, SuiteConfig
from .teacher_forced import Question, answer

NEW_WORDS = 48  # of a continuation: about six statements

Cells = dict[str, dict[str, float]]  # metric -> {value, n}


def text_suite(name: str, suite: SuiteConfig, items: int, data: DataConfig, world: int) -> Suite:
    """One suite with the source `text`, at most `items` questions. Raises UserError for a part that is not there.

    data=stories: the held-out parts validation and test. data=world_text: probe_validation and probe (facts of the
    entities of `suite.entities` to complete), and writing (continuations of their names).
    """
    key = f"evaluation.suites.{name}"
    if data.name == "text":
        if suite.text not in HELD_OUT:
            raise UserError(f"{key}.text: {suite.text!r} is no part of the stories; give one of {', '.join(HELD_OUT)}")
        held_out = load_stories(str(data.path), data.max_bad_share).held_out[suite.text][:items]
        return Suite(name, suite.ood, suite.metrics, tuple(Question("", t) for t in held_out), tuple(held_out))
    if data.name != "world_text" or suite.text not in ("probe_validation", "probe", "writing"):
        raise UserError(f"{key}.text: {suite.text!r} is no part of data={data.name}; see conf/evaluation/")
    known = microworld.build_world(world)
    entities = suite.entities or len(known.entities)
    if suite.text == "writing":
        starts = [known.entities[i % entities] for i in range(items)]
        return Suite(name, suite.ood, suite.metrics, tuple(Question(e, "") for e in starts), (), world=world)
    part = "validation" if suite.text == "probe_validation" else "test"
    asked = microworld.probes(known, part, entities)[:items]
    return Suite(
        name,
        suite.ood,
        suite.metrics,
        tuple(Question(i.instruction, i.answer, i.stop) for i in asked),
        tuple(i.instruction for i in asked),
        microworld.majority_baseline(known, asked),
    )


def measure(
    model: Any, tokenizer: Any, suite: Suite, config: EvaluationConfig, items: int, max_length: int
) -> tuple[Cells, list[dict[str, Any]]]:
    """Metrics of a suite of kind text (accuracy, perplexity, nll) or writing, and its per-item results."""
    asked = suite.questions[:items]
    if suite.metrics == "writing":
        assert suite.world is not None
        return _writing(model, tokenizer, [q.prompt for q in asked], suite.name, suite.world)
    found = answer(model, tokenizer, asked, max_length=max_length, token_budget=config.token_budget)
    nll, n = float(found.nats.sum() / found.tokens.sum()), len(asked)
    values = {"accuracy": float(found.hits.sum() / found.tokens.sum()), "nll": nll, "perplexity": float(np.exp(nll))}
    rows = [
        {"suite": suite.name, "item": i, "hits": float(h), "nats": float(nats), "tokens": float(tokens)}
        for i, (h, nats, tokens) in enumerate(zip(found.hits, found.nats, found.tokens, strict=True))
    ]
    return {name: {"value": value, "n": n} for name, value in values.items()}, rows


def _writing(
    model: Any, tokenizer: Any, starts: Sequence[str], name: str, world: int
) -> tuple[Cells, list[dict[str, Any]]]:
    """grammatical: share of the finished sentences that are of the world's text; consistent: of its facts, the true."""
    known = microworld.build_world(world)
    rows: list[dict[str, Any]] = []
    for i, text in enumerate(write(model, tokenizer, starts, NEW_WORDS, seed=0)):
        finished = [sentence.strip() for sentence in text.split(" .")[:-1]]
        parsed = [facts for s in finished if (facts := microworld.parse(known, s)) is not None]
        stated = [fact for facts in parsed for fact in facts]
        true = len([fact for fact in stated if microworld.is_true(known, fact)])
        counts = {"sentences": len(finished), "parsed": len(parsed), "facts": len(stated), "true": true}
        rows.append({"suite": name, "item": i, **{key: float(value) for key, value in counts.items()}})
    total = {key: sum(row[key] for row in rows) for key in ("sentences", "parsed", "facts", "true")}
    return {
        "grammatical": {"value": total["parsed"] / max(1.0, total["sentences"]), "n": int(total["sentences"])},
        "consistent": {"value": total["true"] / max(1.0, total["facts"]), "n": int(total["facts"])},
    }, rows


@torch.inference_mode()
def write(model: Any, tokenizer: Any, starts: Sequence[str], new_tokens: int, seed: int) -> list[str]:
    """Continuations of one-token `starts`, sampled at temperature 1 by `seed`, up to the end of text."""
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    ids = torch.tensor(tokenizer(list(starts), add_special_tokens=False)["input_ids"], device=device)
    last, cache = ids, None
    for _ in range(new_tokens):
        out = model(input_ids=last, past_key_values=cache, use_cache=True)
        chances = out.logits[:, -1].float().softmax(-1).cpu()  # drawn on the CPU, so that every device draws the same
        last, cache = torch.multinomial(chances, 1, generator=generator).to(device), out.past_key_values
        ids = torch.cat([ids, last], 1)
    texts = []
    for row in ids.tolist():
        end = row.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in row else len(row)
        texts.append(tokenizer.decode(row[:end]))
    return texts


def tokens_to_probe(curve: Sequence[tuple[float, float]], at_least: float) -> dict[str, float]:
    """Tokens seen until a curve of (tokens, score) reaches `at_least`, linear between its points.

    Where it never does, `probe_censored` is 1 and the tokens are those of the whole curve: a lower bound.
    """
    tokens = first_crossing(curve, at_least, "max")
    return {
        "tokens_to_probe": curve[-1][0] if tokens is None else tokens,
        "probe_censored": float(tokens is None),
    }
