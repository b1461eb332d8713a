"""One curation from file to file: every row that is read is kept, rejected with a reason, or set aside with one."""

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from curate.config import (
    DataConfig,
    DecontaminateConfig,
    DedupConfig,
    DuplicationConfig,
    NoiseConfig,
    RewriteConfig,
    ScorerConfig,
    SelectionConfig,
)  # fmt: skip
from curate.duplicate import duplicate
from curate.errors import UserError
from curate.example import column, load_pool, replace, take
from curate.noise import corrupt
from curate.progress import progress
from curate.rewrite import rewrite
from curate.scoring import Scores, score
from curate.select import select, uses_scores
from curate.writing import write_rows


@dataclass(frozen=True)
class Job:
    """A checked config."""

    data: DataConfig
    noise: NoiseConfig
    dedup: DedupConfig
    decontaminate: DecontaminateConfig
    scorer: ScorerConfig
    selection: SelectionConfig
    rewrite: RewriteConfig
    duplication: DuplicationConfig
    source: str
    out: Path
    rejected: Path | None
    layout: str
    audit: bool
    imported: Path | None
    cache: Path | None
    seed: int


def curate(job: Job) -> str:
    """Do the job; returns the line that accounts for every row."""
    aside = job.out.with_name(job.out.name + ".set_aside.jsonl")
    loaded = load_pool(
        job.source,
        rows=job.data.rows,
        max_bad_share=job.data.max_bad_share,
        set_aside=aside,
        fields=job.data.fields,  # type: ignore[arg-type]
    )
    pool = corrupt(loaded.pool, kind=job.noise.kind, rate=job.noise.rate, seed=job.seed)
    why: dict[int, str] = _removed(pool, job)  # row of the pool -> why it is rejected
    left = np.array([row for row in range(len(pool)) if row not in why], dtype=np.int64)
    some = take(pool, left) if why else pool
    scores = _scores(some, job) if _needs_scores(job) else None
    if scores is not None:
        some = replace(some, score=[None if np.isnan(value) else value for value in scores.values.tolist()])
    chosen = _chosen(some, scores, job)
    kept, rest = take(some, chosen), np.setdiff1d(np.arange(len(some)), chosen)
    because = _because(len(some), scores, job.selection)
    scored, selected = some, chosen  # what the audit is about
    if job.rewrite.by != "none":
        some = rewrite(some, rest, job.rewrite)
        because |= {int(row): f"rewritten by the {job.rewrite.by}; {because[int(row)]}" for row in rest}
        chosen, rest, kept = np.arange(len(some)), rest[:0], some
    why |= {int(left[row]): because[int(row)] for row in rest}
    # copies say of what in `duplicate_of`
    final = duplicate(kept, seed=job.seed, templates=job.data.paraphrases, **job.duplication.model_dump())
    texts = dict(zip(column(kept, "id"), (because[int(row)] for row in chosen), strict=True))
    reasons = [texts[of or row] for row, of in zip(column(final, "id"), column(final, "duplicate_of"), strict=True)]
    if job.rejected is not None:
        order = sorted(why)
        gone = (
            take(some, rest)
            if len(left) == len(pool)
            else take(_with_scores(pool, left, scores), np.array(order, np.int64))
        )
        write_rows(job.rejected, gone, extra={"rejected_because": [why[row] for row in order]}, key="out.rejected")
    write_rows(job.out, final, layout=job.layout, extra={"kept_because": reasons})
    accounts = f"{loaded.read} rows in = {len(chosen)} kept + {len(why)} rejected + {len(loaded.bad)} set aside"
    if len(final) != len(kept) or any(column(final, "duplicate_of")):
        accounts += f"; {len(final)} rows out, {sum(of is not None for of in column(final, 'duplicate_of'))} copies"
    if job.audit:
        from curate.audit import report

        rows = {"in": loaded.read, "kept": len(chosen), "rejected": len(why), "set aside": len(loaded.bad)}
        facts = {"command": " ".join(sys.argv[1:]), "accounts": accounts, "rows": {**rows, "out": len(final)}}
        values = {} if scores is None else {str(job.scorer.kind): scores.values}
        report(job.out, scored, selected, values, job=job, facts=facts)
    return accounts + (f" (see {aside})" if loaded.bad else "")


def _needs_scores(job: Job) -> bool:
    return uses_scores(job.selection.kind, job.selection.floor)


def _removed(pool: Dataset, job: Job) -> dict[int, str]:
    """Near-duplicates and rows that stand in an evaluation file: row -> why."""
    if job.dedup.near is None and not job.decontaminate.paths:
        return {}
    from curate.neardup import decontaminate, near_duplicates, suite_prompts

    found: dict[int, str] = {}
    if job.decontaminate.paths:
        suites = suite_prompts(job.decontaminate.paths)
        removed = decontaminate(pool, suites, ngram=job.decontaminate.ngram, threshold=job.decontaminate.near)
        found |= {one.row: one.why for one in removed}
    if job.dedup.near is not None:
        ids = column(pool, "id")
        for one in near_duplicates(pool, threshold=job.dedup.near, by=job.dedup.by, seed=job.seed):
            if one.row not in found:
                found[one.row] = one.why if one.of is None else f"{one.why} of {ids[one.of]}"
    return found


def _scores(pool: Dataset, job: Job) -> Scores:
    known: Mapping[str, float] | None = None
    if job.imported is not None:
        from curate.scoring.known import known_scores

        known = known_scores(job.imported, pool)
    with progress("scoring") as report:
        found = score(
            pool, job.scorer, seed=job.seed, template=job.data.template, cache=job.cache, known=known, progress=report
        )
    said = Counter(found.reasons.values())
    if said:
        reason, count = said.most_common(1)[0]
        print(f"no score for {len(found.reasons)} rows, as {count} of them: {reason}", file=sys.stderr)
    if found.tokens:
        print(f"scores cost {found.seconds:.0f} s, {found.tokens} tokens, ${found.dollars:.4f}", file=sys.stderr)
    return found


def _chosen(pool: Dataset, scores: Scores | None, job: Job) -> np.ndarray:
    options: dict[str, Any] = job.selection.model_dump(exclude={"encoder"})
    if job.selection.kind == "diversity":
        from curate.scoring.embedding import embed, row_texts

        with progress("embedding") as report:
            options["embeddings"] = embed(row_texts(pool), job.selection.encoder, cache=job.cache, progress=report)
    values = None if scores is None else scores.values
    return select(pool, seed=job.seed, scores=values, **options)


def _because(n: int, scores: Scores | None, selection: SelectionConfig) -> dict[int, str]:
    """For every row what the selection had to go by."""
    if scores is None:
        return dict.fromkeys(range(n), f"selection {selection.kind}")
    if selection.kind == "threshold":
        told = {row: f"score {value:.6g}, threshold {selection.threshold:g}" for row, value in enumerate(scores.values)}
    else:
        order = np.argsort(-scores.values, kind="stable")  # NaN last
        rank = np.empty(n, dtype=np.int64)
        rank[order] = np.arange(1, n + 1)
        told = {row: f"score {value:.6g}, rank {rank[row]} of {n}" for row, value in enumerate(scores.values)}
    return told | {row: f"no score: {reason}" for row, reason in scores.reasons.items()}


def _with_scores(pool: Dataset, left: np.ndarray, scores: Scores | None) -> Dataset:
    """The pool with the scores of the rows that got as far as being scored."""
    if scores is None:
        return pool
    values: list[float | None] = [None] * len(pool)
    for row, value in zip(left.tolist(), scores.values.tolist(), strict=True):
        values[row] = None if np.isnan(value) else value
    return replace(pool, score=values)


def check_imported(path: Path | None) -> None:
    """Raise UserError now if a file of scores is not there."""
    if path is not None and not path.is_file():
        raise UserError(f"score.import={path}: no such file; name a file with scores, or null")
