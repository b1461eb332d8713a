"""One curation from file to file: every row that is read is kept, rejected with a reason, or set aside with one."""

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from datasets import Dataset

from curate.cluster import ClusterConfig
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

_CHUNK = 50_000  # rows that are held as Python objects at a time


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
    encoder: str | None
    imported: Path | None
    cache: Path | None
    seed: int
    shards: int = 1
    processes: int = 1  # shards that are scored side by side on this machine
    cluster: ClusterConfig | None = None  # or where else


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
    removed = _removed(pool, job)  # row of the pool -> why
    left = np.setdiff1d(np.arange(len(pool)), np.fromiter(removed, np.int64, len(removed)))
    some = take(pool, left) if removed else pool
    scores = _scores(some, job) if _needs_scores(job) else None
    if scores is not None:
        some = replace(some, score=pyarrow.array(scores.values, from_pandas=True))  # NaN becomes null
    chosen = _chosen(some, scores, job)
    kept, rest = take(some, chosen), np.setdiff1d(np.arange(len(some)), chosen)
    because = _because(len(some), scores, job.selection)
    scored, selected = some, chosen  # what the audit is about
    if job.rewrite.by != "none":
        some, because = rewrite(some, rest, job.rewrite, cache=job.cache), _rewritten(because, rest, job.rewrite.by)
        chosen, rest, kept = np.arange(len(some)), rest[:0], some
    # copies say of what in `duplicate_of`
    final = duplicate(kept, seed=job.seed, templates=job.data.paraphrases, **job.duplication.model_dump())
    if final is kept:
        reasons = _told(because, chosen)
    else:
        texts = dict(zip(column(kept, "id"), chosen.tolist(), strict=True))
        origins = zip(column(final, "id"), column(final, "duplicate_of"), strict=True)
        reasons = _told(because, np.array([texts[of or row] for row, of in origins]))
    if job.rejected is not None:
        gone = np.union1d(left[rest], np.fromiter(removed, np.int64, len(removed)))
        place = np.searchsorted(left, gone)  # among the rows that were scored, for those that were
        told = _told(lambda row: removed.get(int(gone[row])) or because(int(place[row])), np.arange(len(gone)))
        rows = take(some, rest) if not removed else take(_with_scores(pool, left, scores), gone)
        write_rows(job.rejected, rows, extra={"rejected_because": told}, key="out.rejected")
    write_rows(job.out, final, layout=job.layout, extra={"kept_because": reasons})
    rejected = len(removed) + len(rest)
    accounts = f"{loaded.read} rows in = {len(chosen)} kept + {rejected} rejected + {len(loaded.bad)} set aside"
    if final is not kept or final.data.column("duplicate_of").null_count < len(final):
        accounts += f"; {len(final)} rows out, {sum(of is not None for of in column(final, 'duplicate_of'))} copies"
    if job.audit:
        from curate.audit_report import report

        counts = {"in": loaded.read, "kept": len(chosen), "rejected": rejected, "set aside": len(loaded.bad)}
        facts = {"command": " ".join(sys.argv[1:]), "accounts": accounts, "rows": {**counts, "out": len(final)}}
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
        doubled = near_duplicates(pool, threshold=job.dedup.near, by=job.dedup.by, seed=job.seed)
        ids = pool.with_format("arrow")[:]["id"]
        for one in doubled:
            told = one.why if one.of is None else f"{one.why} of {ids[one.of].as_py()}"
            found.setdefault(one.row, told)
    return found


def _scores(pool: Dataset, job: Job) -> Scores:
    known: Mapping[str, float] | None = None
    if job.imported is not None:
        from curate.scoring.known import known_scores

        known = known_scores(job.imported, pool)
    if job.cache is not None and (job.shards > 1 or job.cluster is not None):
        from curate.shards import score_shards

        score_shards(
            pool, job.scorer, seed=job.seed, template=job.data.template, cache=job.cache, shards=job.shards,
            processes=job.processes, cluster=job.cluster,
        )  # fmt: skip
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


def _because(n: int, scores: Scores | None, selection: SelectionConfig) -> Callable[[int], str]:
    """For a row, what the selection had to go by. Told when it is asked for: five million texts are a gigabyte."""
    if scores is None:
        return lambda row: f"selection {selection.kind}"
    values, reasons = scores.values, scores.reasons
    if selection.kind == "threshold":
        beside = f"threshold {selection.threshold:g}"
        return lambda row: f"no score: {reasons[row]}" if row in reasons else f"score {values[row]:.6g}, {beside}"
    rank = np.empty(n, dtype=np.int64)
    rank[np.argsort(-values, kind="stable")] = np.arange(1, n + 1)  # NaN last
    return lambda row: (
        f"no score: {reasons[row]}" if row in reasons else f"score {values[row]:.6g}, rank {rank[row]} of {n}"
    )


def _rewritten(because: Callable[[int], str], rows: np.ndarray, by: str) -> Callable[[int], str]:
    mended = set(rows.tolist())
    return lambda row: f"rewritten by the {by}; {because(row)}" if row in mended else because(row)


def _told(reason: Callable[[int], str], rows: np.ndarray) -> pyarrow.ChunkedArray:
    """The reasons of these rows as one column, without a Python object for each at the same time."""
    chunks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
    return pyarrow.chunked_array(
        [pyarrow.array([reason(row) for row in chunk.tolist()], pyarrow.string()) for chunk in chunks], pyarrow.string()
    )


def _with_scores(pool: Dataset, left: np.ndarray, scores: Scores | None) -> Dataset:
    """The pool with the scores of the rows that got as far as being scored."""
    if scores is None:
        return pool
    values = np.full(len(pool), np.nan)
    values[left] = scores.values
    return replace(pool, score=pyarrow.array(values, from_pandas=True))


def check_imported(path: Path | None) -> None:
    """Raise UserError now if a file of scores is not there."""
    if path is not None and not path.is_file():
        raise UserError(f"score.import={path}: no such file; name a file with scores, or null")
