"""What a selection did to a pool, beside what a random one of its size does, and whether its scorer deserves trust.

    figures = audit(pool, kept, scores={"ifd": scores})

`curate.audit_report` writes the same beside a curated file, as a page.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from datasets import Dataset
from scipy import stats

from curate.bias import Effect
from curate.diversity import MOST_WORDS, entropy, excerpt, spread, text_measures
from curate.example import column
from curate.intervals import among_draws, holm, wilson
from curate.scoring.surface import SURFACE
from curate.validity import (
    ACCURACY_HOW,
    AUROC_HOW,
    BALANCED_HOW,
    Judged,
    against_ledger,
    against_people,
    agreement,
)

DRAWS = 20  # random selections that the kept rows are compared with
_CHUNK = 50_000  # rows that are held as Python objects at a time
_CATEGORIES = 20  # the most frequent ones that are listed
_STYLES = ("list_items", "hedges", "boilerplate")
_DIVERSITY = "diversity"


def audit(
    pool: Dataset,
    kept: np.ndarray,
    *,
    scores: Mapping[str, np.ndarray],
    embeddings: np.ndarray | None = None,
    token_count: Callable[[str], int] | None = None,
    pairs: Judged | None = None,
    effects: Sequence[Effect] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Figures of a selection, fit for JSON: null where something is not known, and then why.

    Args:
        pool: the rows before.
        kept: indices of those that were kept, at least one.
        scores: (rows,) by the scorer's name, NaN for a row without a score.
        embeddings: (rows, width) of unit length.
        token_count: tokens of a text; None: a quarter of its UTF-8 bytes.
        pairs: preference pairs with the scorers' scores.
        effects: what `curate.bias.probe` found, each scorer's edits under one another.

    `measures` holds for each measure its value before and after (`kept`), the mean of DRAWS random selections of the
    same size (`random`), the interval of 95 % in which one more random selection would lie, and `p`, corrected for the
    number of measures by Holm's procedure; `beyond_chance` is p < .05.
    """
    kept = np.asarray(kept, dtype=np.int64)
    if not len(kept):
        raise ValueError("nothing was kept: there is nothing to audit")
    rng = np.random.default_rng([seed, zlib.crc32(b"audit.random")])
    draws = [rng.permutation(len(pool))[: len(kept)] for _ in range(DRAWS)]
    rows = _row_measures(pool, token_count)
    groups, by, names = _categories(pool)
    measures = [_measure(name, "size", values, kept, draws) for name, values in rows.items() if name in _SIZES]
    measures += [_measure(name, "style", values, kept, draws) for name, values in rows.items() if name in _STYLE_NAMES]
    measures += [_measure(f"score: {name}", "score", values, kept, draws) for name, values in scores.items()]
    measures.append(_measure("lexical variety of a response (Guiraud)", _DIVERSITY, rows["variety"], kept, draws))
    measures += _text_diversity(pool, kept, draws, rows, rng)
    whole = np.arange(len(pool))
    sets = [whole, kept, *draws]
    if len(names) > 1:
        measures.append(_compared("entropy of categories (bits)", _DIVERSITY, [entropy(groups[s]) for s in sets]))
    if embeddings is not None:
        values = [spread(embeddings[s]) for s in sets]
        measures.append(_compared("embedding spread (mean cosine distance)", _DIVERSITY, values))
    for measure, p in zip(measures, holm([measure["p"] for measure in measures]), strict=True):
        measure |= {"p": p, "beyond_chance": p < 0.05}
    kinds = column(pool, "noise_kind")
    random = np.random.default_rng([seed, zlib.crc32(b"audit.scorer")]).random(len(pool))
    longer = {"longer wins (words)": rows["words"], "longer wins (characters)": rows["characters"]}
    tokens = rows["tokens"]
    return _plain(
        {
            "rows": {"before": len(pool), "kept": len(kept), "removed": len(pool) - len(kept)},
            "tokens": {
                "before": int(tokens.sum()),
                "kept": int(tokens[kept].sum()),
                "how": "estimated: UTF-8 bytes / 4" if token_count is None else "counted by the tokenizer",
            },
            "reference": f"{DRAWS} random selections of {len(kept)} rows; t prediction interval of 95 %; p by Holm",
            "measures": measures,
            "lengths": _lengths(rows["words"], kept),
            "categories": {"by": by, "rows": _category_rows(groups, names, kept)},
            "embeddings": None if embeddings is not None else "no embeddings were given",
            "noise": _noise(kinds, kept) or None,
            "validity": {
                "how": AUROC_HOW,
                "rows": against_ledger({**scores, **longer, "random": random}, kinds) or None,
            },
            "pairs": None
            if pairs is None or not pairs.pairs
            else {"how": f"{ACCURACY_HOW}; balanced: {BALANCED_HOW}", "rows": against_people(pairs)},
            "agreement": agreement({**scores, "longer wins (words)": rows["words"]}, kept),
            "bias": [asdict(effect) for effect in effects] or None,
        }
    )


# --- measures -------------------------------------------------------------------------------------------------------

_SIZES = ("words", "characters", "tokens", "instruction words")
_STYLE_NAMES = ("responses with a list", "responses with hedges", "responses with boilerplate", "hedges in 100 words")


def _row_measures(pool: Dataset, token_count: Callable[[str], int] | None) -> dict[str, np.ndarray]:
    """(rows,) float64 by name: sizes, style markers, variety."""
    count: Callable[[str], float] = token_count or (lambda text: len(text.encode(errors="replace")) / 4)
    raw: dict[str, list[float]] = {name: [] for name in (*SURFACE, "tokens", "instruction words")}
    for start in range(0, len(pool), _CHUNK):
        chunk = pool.select(range(start, min(start + _CHUNK, len(pool))))
        requests = list(zip(column(chunk, "instruction"), column(chunk, "input"), strict=True))
        outputs = column(chunk, "output")
        for name, measure in SURFACE.items():
            raw[name] += map(measure, outputs)
        raw["tokens"] += [sum(map(count, (*asked, text))) for asked, text in zip(requests, outputs, strict=True)]
        raw["instruction words"] += [len(instruction.split()) for instruction, _ in requests]
    found = {name: np.array(values, dtype=np.float64) for name, values in raw.items()}
    marked = dict(zip(_STYLE_NAMES, [(found[name] > 0).astype(float) for name in _STYLES], strict=False))
    marked["hedges in 100 words"] = 100 * found["hedges"] / np.maximum(1, found["words"])
    return {**{name: found[name] for name in _SIZES}, **marked, "variety": found["lexical_variety"]}


def _measure(
    name: str, group: str, values: np.ndarray, kept: np.ndarray, draws: Sequence[np.ndarray]
) -> dict[str, Any]:
    """The mean of a measure of rows over the pool, the kept rows, and the draws."""
    sets = [values, values[kept], *(values[draw] for draw in draws)]
    return _compared(name, group, [float(np.nanmean(s)) if np.isfinite(s).any() else np.nan for s in sets])


def _compared(name: str, group: str, values: Sequence[float]) -> dict[str, Any]:
    """A measure of [the pool, the kept rows, *draws], and the difference of kept to random with its interval."""
    before, after, draws = values[0], values[1], np.array(values[2:])
    found: dict[str, Any] = {"name": name, "group": group, "before": before, "kept": after}
    if not np.isfinite([after, *draws]).all():
        return {**found, **dict.fromkeys(("random", "low", "high", "change", "change_low", "change_high")), "p": 1.0}
    mean, (low, high), p = among_draws(after, draws)
    change = {"change": after - mean, "change_low": after - high, "change_high": after - low}
    return {**found, "random": mean, "low": low, "high": high, **change, "p": p}


def _text_diversity(
    pool: Dataset,
    kept: np.ndarray,
    draws: Sequence[np.ndarray],
    rows: Mapping[str, np.ndarray],
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """Of responses and of instructions, each on as many words as the smallest of the sets holds."""
    sets = [rng.permutation(len(pool)), rng.permutation(kept), *draws]
    found = []
    for field, label, counts in (
        ("output", "of responses", rows["words"]),
        ("instruction", "of instructions", rows["instruction words"]),
    ):
        budget = int(min(MOST_WORDS, *(counts[s].sum() for s in sets)))
        measured = [text_measures(excerpt(pool, field, s, counts, budget)) for s in sets]
        found += [
            _compared(f"{name} {label}, {budget} words", _DIVERSITY, [m[name] for m in measured])
            for name in measured[0]
        ]
    return found


def _lengths(words: np.ndarray, kept: np.ndarray) -> dict[str, Any]:
    """Quantiles of the words of responses, and their histogram as shares of the rows."""
    edges = np.unique(np.geomspace(1, words.max() + 1, 25).round())
    edges = np.concatenate([[0.0], edges]) if edges[0] > 0 else edges
    sets = {"before": words, "kept": words[kept]}
    return {
        "quantiles": {
            f"{share:g}": {name: float(np.quantile(values, share)) for name, values in sets.items()}
            for share in (0.05, 0.25, 0.5, 0.75, 0.95)
        },
        "edges": edges.tolist(),
        **{name: (np.histogram(values, edges)[0] / len(values)).tolist() for name, values in sets.items()},
    }


def _categories(pool: Dataset) -> tuple[np.ndarray, str, list[str]]:
    """(category of each row as a number, where it is from, names by number)."""
    labels: list[str | None] = column(pool, "category")
    by = "the column category"
    if not any(labels):
        by = "the first word of the instruction, as there is no column category"
        firsts = (text.split(maxsplit=1)[:1] for text in column(pool, "instruction"))
        labels = [first[0].strip(".,:;!?\"'()").lower() if first else "" for first in firsts]
    names, groups = np.unique([label or "(none)" for label in labels], return_inverse=True)
    return groups, by, names.tolist()


def _category_rows(groups: np.ndarray, names: Sequence[str], kept: np.ndarray) -> list[dict[str, Any]]:
    """The most frequent categories; a random selection's count of one is hypergeometric, so its interval is exact."""
    n, k = len(groups), len(kept)
    before = np.bincount(groups, minlength=len(names))
    after = np.bincount(groups[kept], minlength=len(names))
    listed = np.argsort(-before, kind="stable")[:_CATEGORIES]
    low, high = (stats.hypergeom.ppf(q, n, before[listed], k) / k for q in (0.025, 0.975))
    # twice the smaller tail, in which the count itself stands
    tails = (stats.hypergeom.cdf(after, n, before, k), stats.hypergeom.sf(after - 1, n, before, k))
    p = np.array(holm(np.minimum(1, 2 * np.minimum(*tails)).tolist()))[listed]
    return [
        {
            "name": names[at], "before": int(before[at]), "kept": int(after[at]), "share_before": before[at] / n,
            "share_kept": after[at] / k, "low": low[i], "high": high[i], "p": p[i], "beyond_chance": bool(p[i] < 0.05),
        }
        for i, at in enumerate(listed)
    ]  # fmt: skip


def _noise(kinds: Sequence[str | None], kept: np.ndarray) -> list[dict[str, Any]]:
    """Rows removed by kind, the clean ones first; nothing if the ledger is empty."""
    labels = np.array([kind or "clean" for kind in kinds])
    names = sorted(set(labels) - {"clean"})
    stays = np.zeros(len(labels), dtype=bool)
    stays[kept] = True
    found = []
    for kind in ["clean", *names, "all noise"] if names else []:
        rows = labels != "clean" if kind == "all noise" else labels == kind
        n, gone = int(rows.sum()), int((rows & ~stays).sum())
        low, high = wilson(gone, n)
        found.append(
            {"kind": kind, "rows": n, "kept": n - gone, "removed": gone, "share": gone / n if n else None,
             "low": low, "high": high, "random": 1 - len(kept) / len(labels)}
        )  # fmt: skip
    return found


def _plain(value: Any) -> Any:
    """The same for JSON: Python's own types, null for what is not finite."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value
