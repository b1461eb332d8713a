"""Does a scorer deserve trust: against the ledger of the noise, against people's preferences, against other scorers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from curate.intervals import auroc, mean_of_two, spearman, wilson
from curate.preferences import Preference

AUROC_HOW = "share of (clean, noisy) pairs of rows in the right order, ties half; Newcombe's method 5 for the interval"
ACCURACY_HOW = "share of pairs in which the chosen response scores higher, ties half; Wilson's interval"
BALANCED_HOW = "mean of the accuracies where the chosen response is longer and where it is shorter, in words"
SELECTION = "the selection"


@dataclass(frozen=True)
class Judged:
    """Preferences with scores: for each scorer those of the chosen and of the rejected responses, (pairs,) each."""

    pairs: Sequence[Preference]
    scores: Mapping[str, tuple[np.ndarray, np.ndarray]]


def against_ledger(scores: Mapping[str, np.ndarray], kinds: Sequence[str | None]) -> list[dict[str, Any]]:
    """AUROC of each scorer by kind of noise and over all; rows without a score are left out and counted."""
    labels = np.array([kind or "" for kind in kinds])
    names = sorted(set(labels.tolist()) - {""})
    found: list[dict[str, Any]] = []
    if not names or not (labels == "").any():
        return found
    for scorer, values in scores.items():
        known = np.isfinite(values)
        for kind in [*names, "all"]:
            wrong = (labels != "") if kind == "all" else labels == kind
            clean, noisy = values[(labels == "") & known], values[wrong & known]
            row: dict[str, Any] = {"scorer": scorer, "kind": kind, "clean": len(clean), "noisy": len(noisy)}
            row["unscored"] = int((~known & ((labels == "") | wrong)).sum())
            value, (low, high) = auroc(clean, noisy) if len(clean) and len(noisy) else (np.nan, (np.nan, np.nan))
            found.append({**row, "auroc": value, "low": low, "high": high})
    return found


def against_people(judged: Judged) -> list[dict[str, Any]]:
    """Pairwise accuracy of each scorer and of "longer wins", plain and balanced for length."""
    sides = [[pair.chosen for pair in judged.pairs], [pair.rejected for pair in judged.pairs]]
    words = [np.array([float(len(text.split())) for text in side]) for side in sides]
    characters = [np.array([float(len(text)) for text in side]) for side in sides]
    longer = words[0] - words[1]
    margins = {name: chosen - rejected for name, (chosen, rejected) in judged.scores.items()}
    margins |= {"longer wins (words)": longer, "longer wins (characters)": characters[0] - characters[1]}
    found = []
    for scorer, values in margins.items():
        known = np.isfinite(values)
        value, (low, high) = accuracy(values[known])
        parts = [accuracy(values[known & part]) for part in (longer > 0, longer < 0)]
        balanced, (b_low, b_high) = mean_of_two(*parts)
        found.append(
            {
                "scorer": scorer, "pairs": int(known.sum()), "unscored": int((~known).sum()),
                "accuracy": value, "low": low, "high": high,
                "balanced": balanced, "balanced_low": b_low, "balanced_high": b_high,
                "chosen_longer": parts[0][0], "chosen_shorter": parts[1][0],
            }
        )  # fmt: skip
    return found


def accuracy(margins: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Share of margins above zero, those at zero half, with its interval; NaN for none."""
    if not len(margins):
        return np.nan, (np.nan, np.nan)
    hits = float((margins > 0).sum() + (margins == 0).sum() / 2)
    return hits / len(margins), wilson(hits, len(margins))


def agreement(scores: Mapping[str, np.ndarray], kept: np.ndarray) -> list[dict[str, Any]]:
    """Of every two scorers: Spearman's rho, and how much their best rows overlap, as many as were kept.

    The selection itself stands beside each scorer, with the overlap alone. `chance` is what two random sets of this
    size share, with the interval of 95 % in which it lies (hypergeometric).
    """
    size = len(kept)
    best: dict[str, np.ndarray] = {SELECTION: kept}
    for name, values in scores.items():
        order = np.argsort(-values, kind="stable")
        best[name] = order[np.isfinite(values[order])][:size]
    found: list[dict[str, Any]] = []
    for a, b in combinations(best, 2):
        row: dict[str, Any] = {"a": a, "b": b, "rho": None, "low": None, "high": None}
        if a != SELECTION:
            both = np.isfinite(scores[a]) & np.isfinite(scores[b])
            if (rank := spearman(scores[a][both], scores[b][both])) is not None:
                row |= {"rho": rank[0], "low": rank[1][0], "high": rank[1][1]}
        n = len(scores[b])
        shared = len(np.intersect1d(best[a], best[b]))
        least, most = stats.hypergeom.ppf([0.025, 0.975], n, len(best[a]), len(best[b]))
        row |= {"k": size, "overlap": shared / size, "chance": len(best[a]) * len(best[b]) / n / size}
        found.append({**row, "chance_low": least / size, "chance_high": most / size})
    return found
