"""The audit of a curation beside its file: figures, page, and a data card that says where the rows come from."""

import functools
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset

from curate.audit import audit
from curate.audit_page import page
from curate.bias import probe
from curate.card import card, card_text
from curate.example import make_pool
from curate.preferences import Preference, read_preferences
from curate.progress import progress
from curate.reading import HUB
from curate.scoring import score as score_rows
from curate.validity import Judged
from curate.writing import atomic

if TYPE_CHECKING:
    from curate.job import Job

_PAIRS = 1000  # preference pairs that are scored for a report


def report(
    out: Path,
    pool: Dataset,
    kept: np.ndarray,
    scores: Mapping[str, np.ndarray],
    *,
    job: "Job",
    facts: Mapping[str, Any],
) -> None:
    """Write OUT.audit.html, OUT.audit.json, OUT.card.md and OUT.card.json for rows that the job has written to OUT.

    `pool` and `kept` are the rows before the selection and the indices of those it kept. `facts`: `command` and
    `accounts` (a line), and if known `rows` (numbers by name) and `licence`. A scorer that the selection did not use
    is asked all the same, and its bias is probed, if a row's score depends on the row alone and costs no money.
    """
    score, reason = _row_scorer(job)
    name = job.scorer.kind if job.scorer.kind != "surface" else job.scorer.feature
    scores = {name if key == job.scorer.kind else key: values for key, values in scores.items()}
    if score is not None and not scores:
        scores = {name: score(pool)}
    effects = probe(pool, score, seed=job.seed) if score is not None else []
    pairs, no_pairs = _judged(job, name, score)
    embeddings = _embeddings(pool, job)
    figures = audit(pool, kept, scores=scores, embeddings=embeddings, pairs=pairs, effects=effects, seed=job.seed)
    figures |= {"scorer": name, "no_bias": reason, "no_pairs": no_pairs, "accounts": facts["accounts"]}
    if embeddings is None:
        figures["embeddings"] = "no encoder was named; set out.encoder=minilm"
    found = card(out, pool, kept, job=job, facts=facts, figures=figures)
    texts = {
        "audit.json": json.dumps(figures, indent=1, allow_nan=False) + "\n",
        "audit.html": page(figures, title=f"What the selection did: {out.name}"),
        "card.json": json.dumps(found, indent=1, allow_nan=False) + "\n",
        "card.md": card_text(found),
    }
    for suffix, text in texts.items():
        with atomic(out.with_name(f"{out.name}.{suffix}"), key="out.audit") as scratch:
            scratch.write_text(text, encoding="utf-8")


def _row_scorer(job: "Job") -> tuple[Callable[[Dataset], np.ndarray] | None, str | None]:
    """The job's scorer as a function of rows, or else why it cannot be asked about other rows than the pool's."""
    kind = job.scorer.kind
    reasons = {
        "none": "there is no scorer",
        "random": "random scores answer to nothing",
        "oracle": "the oracle reads the ledger and not the text",
        "ensemble": "the ranks of an ensemble depend on the other rows",
        "judge": "asking the judge again would cost money",
    }
    if kind in reasons:
        return None, reasons[kind]
    if kind == "embedding" and job.scorer.target is None:
        return None, "the distance to the nearest rows depends on the other rows"
    ask = functools.partial(score_rows, scorer=job.scorer, seed=job.seed, template=job.data.template, cache=job.cache)

    def score(pool: Dataset) -> np.ndarray:
        with progress("scoring for the audit") as told:
            return ask(pool, progress=told).values

    return score, None


def _judged(job: "Job", name: str, score: Callable[[Dataset], np.ndarray] | None) -> tuple[Judged | None, str | None]:
    """Some of the preference pairs that come with the data, scored; or why there are none."""
    source = _preferences_source(job)
    if source is None:
        return None, f"data.pairs_valid={job.data.pairs_valid or 'null'}: no preference pairs"
    pairs = read_preferences(source, "data.pairs_valid", unescape=True)
    order = np.random.default_rng([job.seed, zlib.crc32(b"audit.pairs")]).permutation(len(pairs))[:_PAIRS]
    some = [pairs[at] for at in np.sort(order)]
    if not some:
        return None, f"data.pairs_valid={job.data.pairs_valid}: holds no pair"
    if score is None:
        return Judged(some, {}), None
    sides = (score(_side(some, "chosen")), score(_side(some, "rejected")))
    return Judged(some, {name: sides}), None


def _side(pairs: Sequence[Preference], side: str) -> Dataset:
    rows = ({"instruction": p.instruction, "input": p.input, "output": getattr(p, side)} for p in pairs)
    return make_pool(rows, source="pairs")


def _preferences_source(job: "Job") -> str | None:
    """The file of pairs as given or under the data root, or a name of the hub; None if there is none."""
    given = job.data.pairs_valid
    if given is None or given.startswith(HUB):
        return given
    root = Path(job.data.root) if job.data.root else Path(job.source).parent.parent
    return next((str(path) for path in (Path(given), root / given) if path.is_file()), None)


def _embeddings(pool: Dataset, job: "Job") -> np.ndarray | None:
    """By the encoder that is asked for, or those that a selection for diversity went by, which are in the cache."""
    if job.encoder is None and job.selection.kind != "diversity":
        return None
    from curate.scoring.embedding import embed, row_texts

    encoder = job.selection.encoder if job.encoder is None else job.encoder
    with progress("embedding for the audit") as told:
        return embed(row_texts(pool), None if encoder == "minilm" else encoder, cache=job.cache, progress=told)
