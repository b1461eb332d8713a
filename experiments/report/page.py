"""The report as one HTML file and as Markdown, from the same content."""

import html
from collections.abc import Iterable, Sequence
from typing import Any

from experiments.report.content import (
    ARM_COLUMNS,
    CLAIM_COLUMNS,
    VERDICTS,
    Content,
    arm_rows,
    claim_rows,
    evidence,
    headline_first,
    margin_of,
    number,
)
from experiments.report.figures import COLOURS, Drawing

ARMS_NOTE = (
    "Means over the finished pairs, at the point that does best on {best}; the interval is a t interval of 95 % for the"
    " arm by itself, base models as fixed blocks. Arms are compared in pairs, so these intervals may overlap where a"
    " claim is decided. Seconds are of one core, or of the GPU; training the scorer itself is not in them."
)
SCORERS_NOTE = (
    "How well a scorer tells clean rows from each kind of noise: the share of clean and noisy rows that it puts in the"
    " right order (AUROC; 0.5 is chance). Under pairs: the share of held-out preference pairs that the parts of the"
    " reward model put in the right order, beside what it must beat, that the response with more tokens or words wins."
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


def _shown_columns(rows: Sequence[Sequence[str]], columns: Sequence[str]) -> list[int]:
    """Columns with something in them."""
    return [i for i in range(len(columns)) if i == 0 or any(row[i] not in ("–", "") for row in rows)]


def tables_of(content: Content) -> dict[str, tuple[list[str], list[list[str]]]]:
    """Name -> (columns, rows) of the tables, as text."""
    columns = [content.primary if name == "score" else name for name in ARM_COLUMNS]
    rows = arm_rows(content.arms)
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


# --- HTML -----------------------------------------------------------------------------------------------------------

STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --card: #f6f7f9; LIGHT }
@media (prefers-color-scheme: dark) { :root { --page: #15181c; --card: #1d2126; DARK } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 5rem }
h1 { font-size: 1.75rem; line-height: 1.2; letter-spacing: -.01em; margin: 0 0 .4rem }
h2 { font-size: 1.15rem; margin: 3rem 0 .8rem }
p { margin: .5rem 0 } .muted, figcaption { color: var(--muted) } figcaption, .note { font-size: .9rem }
ol.claims { list-style: none; margin: 1.8rem 0 0; padding: 0 }
ol.claims li { padding: .85rem 0; border-top: 1px solid var(--grid) }
ol.claims li:first-child { border: 0; background: var(--card); border-radius: .6rem;
  padding: 1.1rem 1.25rem; margin-bottom: .6rem }
ol.claims li:first-child .said { font-size: 1.2rem; line-height: 1.35 }
.said { font-weight: 600 }
.reproduced { color: var(--c2) } .contradicted { color: var(--c1) } .no_effect { color: var(--c0) }
.inconclusive, .not_comparable { color: var(--muted) }
figure { margin: 0 } svg { display: block; width: 100%; height: auto }
.wide { max-width: 58rem } .narrow { display: none; max-width: 30rem }
@media (max-width: 40rem) { .wide { display: none } .narrow { display: block } main { padding-top: 1.5rem } }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; width: 100% }
th, td { text-align: right; padding: .4rem .7rem; border-bottom: 1px solid var(--grid); white-space: nowrap;
  vertical-align: top }
th { color: var(--muted); font-weight: 500 } th:first-child, td:first-child { text-align: left; padding-left: 0 }
table.text th, table.text td { text-align: left } table.text td:last-child { white-space: normal }
details { border-top: 1px solid var(--grid); padding: .6rem 0 } summary { cursor: pointer }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; font-size: .92rem; margin: .6rem 0 }
dt { color: var(--muted) } dd { margin: 0; overflow-wrap: anywhere }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; gap: 0 } dd { margin-bottom: .5rem } }
pre { background: var(--card); border-radius: .5rem; padding: .9rem 1rem; overflow-x: auto; font-size: .82rem;
  line-height: 1.45 }
"""


def _e(text: Any) -> str:
    return html.escape(str(text), quote=True)


def _style() -> str:
    light = " ".join(f"--{name}: {colours[1]};" for name, colours in COLOURS.items())
    dark = " ".join(f"--{name}: {colours[2]};" for name, colours in COLOURS.items())
    return STYLE.replace("LIGHT", light).replace("DARK", dark)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], text: bool = False) -> str:
    head = "".join(f'<th scope="col">{_e(c)}</th>' for c in columns)
    body = "\n".join("<tr>" + "".join(f"<td>{_e(c)}</td>" for c in row) + "</tr>" for row in rows)
    kind = ' class="text"' if text else ""
    table = f"<table{kind}>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
    return f'<div class="scroll" tabindex="0">{table}</div>'


def _pairs(items: Iterable[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{_e(key)}</dt><dd>{_e(value)}</dd>" for key, value in items) + "</dl>"


def page(content: Content, drawings: Sequence[Drawing]) -> str:
    """The page: one file, no request, no script."""
    title = content.title or content.name
    found = tables_of(content)
    parts = [f"<h1>{_e(title)}</h1>", f'<p class="muted">{_e(_summary(content))}</p>']
    if content.claims:
        items = []
        for claim in headline_first(content.claims):
            verdict = f'<span class="{claim["verdict"]}">{VERDICTS[claim["verdict"]].capitalize()}</span>'
            items.append(
                f'<li><p class="said">{verdict}, {_e(claim["scope"])}: {_e(claim["title"])}.</p>'
                f'<p class="muted note">{_e(evidence(claim))} ({_e(claim["source"])})</p></li>'
            )
        parts.append('<ol class="claims">\n' + "\n".join(items) + "\n</ol>")
    for drawing in drawings:
        parts.append(
            f'<h2>{HEADINGS[drawing.name]}</h2>\n<figure><div class="wide">{drawing.wide}</div>'
            f'<div class="narrow">{drawing.narrow}</div><figcaption>{_e(drawing.caption)}</figcaption></figure>'
        )
    parts.append("<h2>What each arm is, reaches and costs</h2>\n" + _table(*found["arms"]))
    parts.append(f'<p class="muted note">{_e(ARMS_NOTE.format(best=content.best))}</p>')
    if "scorers" in found:
        parts.append("<h2>What the scorers see</h2>\n" + _table(*found["scorers"]))
        parts.append(f'<p class="muted note">{_e(SCORERS_NOTE)}</p>')
    if "missing" in found:
        parts.append("<h2>Runs that are missing</h2>\n" + _table(*found["missing"], text=True))
    if content.claims:
        parts.append("<h2>The claims in full</h2>\n" + _table(*found["claims"]))
        parts += [_claim_details(claim) for claim in headline_first(content.claims)]
    parts.append("<h2>How to read the verdicts</h2>\n" + _pairs(RULES) + f'<p class="note">{_e(RULES_NOTE)}</p>')
    parts.append("<h2>How it was made</h2>\n" + _pairs(content.facts) + f"<pre>{_e(content.command)}</pre>")
    parts.append(f'<p class="note">{_e(REPRODUCE)}</p>')
    parts.append(f"<details><summary>Configuration</summary><pre>{_e(content.config_yaml.rstrip())}</pre></details>")
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{_e(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<style>{_style()}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _summary(content: Content) -> str:
    done, planned = sum(a.done for a in content.arms), sum(a.planned for a in content.arms)
    runs = f"{done} runs" if done == planned else f"{done} of {planned} planned runs"
    return f"{content.name}: {runs}, {len(content.arms)} arms; the measure is {content.primary}."


def _details(claim: Any) -> list[tuple[str, str]]:
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


def _claim_details(claim: Any) -> str:
    return f"<details><summary>{_e(claim['id'])}</summary>{_pairs(_details(claim))}</details>"


# --- Markdown -------------------------------------------------------------------------------------------------------


def _m(text: Any) -> str:
    """Text that means only itself in Markdown, on one line."""
    escaped = "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in str(text))
    return " ".join(escaped.split())


def _md_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] + ["---:"] * (len(columns) - 1)]
    head = ["| " + " | ".join(map(_m, lines[0])) + " |", "| " + " | ".join(lines[1]) + " |"]
    return "\n".join(head + ["| " + " | ".join(map(_m, row)) + " |" for row in rows])


def _md_pairs(items: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"- {_m(key)}: {_m(value)}" for key, value in items)


def markdown(content: Content, drawings: Sequence[Drawing]) -> str:
    """The same report for a terminal or a code host."""
    found = tables_of(content)
    parts = [f"# {_m(content.title or content.name)}", _m(_summary(content))]
    if content.claims:
        parts.append(
            "\n".join(
                f"- **{VERDICTS[c['verdict']].capitalize()}**, {_m(c['scope'])}: {_m(c['title'])}. {_m(evidence(c))}"
                f" ({_m(c['source'])})"
                for c in headline_first(content.claims)
            )
        )
    for drawing in drawings:
        parts.append(f"![{_m(drawing.alt)}](figures/{drawing.name}.svg)\n\n{_m(drawing.caption)}")
    parts += [
        "## What each arm is, reaches and costs",
        _md_table(*found["arms"]),
        _m(ARMS_NOTE.format(best=content.best)),
    ]
    if "scorers" in found:
        parts += ["## What the scorers see", _md_table(*found["scorers"]), _m(SCORERS_NOTE)]
    if "missing" in found:
        parts += ["## Runs that are missing", _md_table(*found["missing"])]
    if content.claims:
        parts += ["## The claims in full", _md_table(*found["claims"])]
        parts += [f"### {_m(c['id'])}\n\n{_md_pairs(_details(c))}" for c in headline_first(content.claims)]
    parts += ["## How to read the verdicts", _md_pairs(RULES), _m(RULES_NOTE)]
    parts += ["## How it was made", _md_pairs(content.facts), _fenced(content.command), _m(REPRODUCE)]
    parts += ["## Configuration", _fenced(content.config_yaml.rstrip())]
    return "\n\n".join(parts) + "\n"


def _fenced(text: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text}\n{fence}"
