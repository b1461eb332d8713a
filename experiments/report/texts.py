"""What page and Markdown have in common: the tables as text, headings and notes."""

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.report.content import (
    ARM_COLUMNS,
    CLAIM_COLUMNS,
    Arm,
    Content,
    Difference,
    arm_cells,
    claim_rows,
    count,
    headline_first,
    margin_of,
    number,
)
from experiments.report.folders import Selection

ARMS_NOTE = (
    "Means over the finished pairs, at the point that does best on {best}; the interval is a t interval of 95 % for the"
    " arm by itself, base models as fixed blocks. Arms are compared in pairs, so these intervals may overlap where a"
    " claim is decided. Differences are over the pairs that both arms have. The best control is, of random, random of"
    " the same lengths, and longest at the same number of rows, the one with the best validation score. Minutes are of"
    " one core, or of the GPU; training the scorer itself is not in them, and money is what an API asked for."
)
SEVERAL_DEVICES = (
    " The runs were made on several devices ({devices}): minutes of one arm may be those of another machine, and no"
    " figure weighs scores against them."
)
SCORERS_NOTE = (
    "How well a scorer tells clean rows from each kind of noise: the share of clean and noisy rows that it puts in the"
    " right order (AUROC; 0.5 is chance). Under pairs: the share of held-out preference pairs that the parts of the"
    " reward model put in the right order, beside what it must beat, that the response with more tokens or words wins."
)
SELECTIONS_NOTE = (
    "Means over the runs that recorded it. Under each kind of noise, and clean, the rows that are trained on as a share"
    " of the pool's rows of that kind; copies count, so that a duplicated set may have more than there were."
)
RULES = (
    ("reproduced", "the whole interval lies beyond the margin, on the side that the claim says"),
    ("contradicted", "the whole interval lies beyond the margin, on the other side"),
    ("no effect", "the whole interval lies within the margins: whatever there is, is too small to matter"),
    ("undecided", "none of these; more pairs may decide it, and how many is said where it can be"),
    ("not comparable", "the claim cannot be judged at this scale, and the reason is given"),
)
RULES_NOTE = (
    "A claim of equivalence is reproduced inside the margins and contradicted beyond either; one of non-inferiority is"
    " reproduced if the interval lies above the lower margin. Margins were fixed before the first run. The claims share"
    " a risk of 5 % that any of their verdicts is false (Holm's step-down), hence the different levels. A verdict holds"
    " for its scope: “these base models” says nothing about others. The quoted size is judged apart: the interval"
    " covers or excludes it."
)
HEADINGS = {
    "curves": "Over training",
    "suites": "Suite by suite",
    "cost": "What it costs",
    "dose": "Level by level",
    "entropy": "As unsure as it should be",
    "iso_error": "What is as good as what",
    "arms": "Arm by arm",
    "claims": "The claims in figures",
}
REPRODUCE = (
    "Every verdict can be computed again from runs.csv and claims.json, which lie beside this page:"
    " python -m experiments.claims check FOLDER."
)


def arms_note(content: Content) -> str:
    """What stands under the table of arms."""
    devices = ", ".join(f"{name}: {count(runs)} runs" for name, runs in sorted(content.devices.items()))
    warning = SEVERAL_DEVICES.format(devices=devices) if len(content.devices) > 1 else ""
    return ARMS_NOTE.format(best=content.best) + warning


def scorers_note(content: Content) -> str:
    """What stands under the table of scorers."""
    rulers = [
        label
        for label, found in content.scorers.items()
        if "pairs:joint" in found
        and found["pairs:joint"] <= max(found.get("pairs:longer_wins", 0), found.get("pairs:more_words_win", 0))
    ]
    warning = " No better than preferring the longer response: {}." if rulers else ""
    return SCORERS_NOTE + warning.format(", ".join(rulers))


def _shown_columns(rows: Sequence[Sequence[str]], columns: Sequence[str]) -> list[int]:
    """Columns with something in them."""
    return [i for i in range(len(columns)) if i == 0 or any(row[i] not in ("–", "") for row in rows)]


FULL_COLUMNS = (
    *ARM_COLUMNS,
    "minus full",
    "minus best control",
    "control",
    "scoring min",
    "selection min",
    "training min",
    "money $",
)


def full_cells(arm: Arm) -> list[str]:
    """One row of the report's arm table, under `FULL_COLUMNS`."""
    control = arm.to_control
    return [
        *arm_cells(arm),
        difference(arm.to_full),
        difference(control),
        control.of if control else "–",
        *(minutes(arm.means.get(f"cost/{name}_s")) for name in ("score", "select", "train")),
        money(arm.means.get("cost/score_dollars")),
    ]


def difference(found: Difference | None) -> str:
    """A paired difference with its interval."""
    if found is None:
        return "–"
    mean, low, high = ("" if x is None else f"{x:+.3f}".replace("-", "−") for x in (found.mean, found.low, found.high))
    return f"{mean} ({low} to {high})" if low else mean


def minutes(seconds: float | None) -> str:
    """Seconds as minutes, to two digits that say something."""
    return "–" if seconds is None else f"{seconds / 60:.2f}" if seconds < 600 else f"{seconds / 60:,.0f}"


def money(dollars: float | None) -> str:
    """Dollars; nothing where nothing is paid for."""
    return f"{dollars:.2f}" if dollars else "–"


def tables_of(content: Content) -> dict[str, tuple[list[str], list[list[str]]]]:
    """Name -> (columns, rows) of the tables, as text."""
    columns = [content.primary if name == "score" else name for name in FULL_COLUMNS]
    rows = [full_cells(arm) for arm in content.arms]
    shown = _shown_columns(rows, columns)
    found = {"arms": ([columns[i] for i in shown], [[row[i] for i in shown] for row in rows])}
    if content.scorers:
        known = {name for scorer in content.scorers.values() for name in scorer}
        names = sorted(known, key=lambda name: (name.startswith("pairs:"), name == "auroc:all", name))
        rows = [[label, *(number(scorer.get(name), 2) for name in names)] for label, scorer in content.scorers.items()]
        found["scorers"] = (["scorer of", *(name.removeprefix("auroc:") for name in names)], rows)
    if content.failures:
        rows = [[f.label, str(f.pair), f.run_id, f.reason] for f in content.failures]
        found["missing"] = (["arm", "pair", "run", "why"], rows)
    if content.claims:
        found["claims"] = (list(CLAIM_COLUMNS), claim_rows(headline_first(content.claims)))
    return found


def selection_table(found: Sequence[Selection]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of what each selection did."""
    kinds = dict.fromkeys(kind for one in found for kind in one.kinds)
    columns = ["arm", "runs", "pool rows", "rows trained on", "words a response, pool", "trained on"]
    columns += [f"of {kind} rows" for kind in kinds]
    rows = []
    for one in found:
        shares = [_share(*one.kinds.get(kind, (0.0, 0.0))) for kind in kinds]
        sizes = [count(one.pool_rows), count(one.rows), number(one.pool_words, 1), number(one.words, 1)]
        rows.append([one.label, str(one.runs), *sizes, *shares])
    return columns, rows


def _share(pool: float, trained: float) -> str:
    return f"{100 * trained / pool:.1f} %" if pool else "–"


def summary(content: Content) -> str:
    done, planned = sum(a.done for a in content.arms), sum(a.planned for a in content.arms)
    runs = f"{done} runs" if done == planned else f"{done} of {planned} planned runs"
    return f"{content.name}: {runs}, {len(content.arms)} arms; the measure is {content.primary}."


def details(claim: Mapping[str, Any]) -> list[tuple[str, str]]:
    asked = {"treatment": claim["treatment"], "control": claim["control"]}
    contrast = " against ".join(
        ", ".join(f"{k}={v}" for k, v in side.items() if k != "best_of") for side in asked.values() if side
    )
    statistic = ", ".join(f"{k} {v}" for k, v in (claim["statistic"] or {}).items() if v not in (None, False))
    found = [
        ("source", claim["source"]),
        ("quoted", claim["quoted"]),
        ("reading", claim["reading"]),
        ("contrast", contrast),
        (
            "judged by",
            f"{claim['metric']} at {claim['point']}, {claim['scale'].replace('_', ' ')}, kind {claim['kind']}",
        ),
        ("statistic", statistic),
        ("margin", margin_of(claim)),
        ("scope", claim["scope"]),
        ("pairs that would decide it", str(claim["seeds_needed"] or "")),
        ("note", claim["note"]),
    ]
    return [(key, value) for key, value in found if value]
