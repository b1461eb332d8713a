"""The report as Markdown."""

from collections.abc import Iterable, Sequence
from typing import Any

from experiments.report.content import VERDICTS, Content, evidence, headline_first, shown
from experiments.report.figures import Drawing
from experiments.report.texts import (
    REPRODUCE,
    RULES,
    RULES_NOTE,
    arms_note,
    details,
    scorers_note,
    summary,
    tables_of,
)


def escaped(text: Any) -> str:
    """Text that means only itself in Markdown, on one line."""
    marked = "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in shown(str(text)))
    return " ".join(marked.split())


def _md_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] + ["---:"] * (len(columns) - 1)]
    head = ["| " + " | ".join(map(escaped, lines[0])) + " |", "| " + " | ".join(lines[1]) + " |"]
    return "\n".join(head + ["| " + " | ".join(map(escaped, row)) + " |" for row in rows])


def _md_pairs(items: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"- {escaped(key)}: {escaped(value)}" for key, value in items)


def markdown(content: Content, drawings: Sequence[Drawing]) -> str:
    """The same report for a terminal or a code host."""
    found = tables_of(content)
    parts = [f"# {escaped(content.title or content.name)}", escaped(summary(content))]
    if content.claims:
        parts.append(
            "\n".join(
                f"- **{VERDICTS[c['verdict']].capitalize()}**, {escaped(c['scope'])}: {escaped(c['title'])}."
                f" {escaped(evidence(c))}"
                f" ({escaped(c['source'])})"
                for c in headline_first(content.claims)
            )
        )
    for drawing in drawings:
        parts.append(f"![{escaped(drawing.alt)}](figures/{drawing.name}.svg)\n\n{escaped(drawing.caption)}")
    parts += [
        "## What each arm is, reaches and costs",
        _md_table(*found["arms"]),
        escaped(arms_note(content)),
    ]
    if "scorers" in found:
        parts += ["## What the scorers see", _md_table(*found["scorers"]), escaped(scorers_note(content))]
    if "missing" in found:
        parts += ["## Runs that are missing", _md_table(*found["missing"])]
    if content.claims:
        parts += ["## The claims in full", _md_table(*found["claims"])]
        parts += [f"### {escaped(c['id'])}\n\n{_md_pairs(details(c))}" for c in headline_first(content.claims)]
    parts += ["## How to read the verdicts", _md_pairs(RULES), escaped(RULES_NOTE)]
    parts += ["## How it was made", _md_pairs(content.facts), _fenced(content.command), escaped(REPRODUCE)]
    parts += ["## Configuration", _fenced(content.config_yaml.rstrip())]
    return "\n\n".join(parts) + "\n"


def _fenced(text: str) -> str:
    text, fence = shown(text), "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text}\n{fence}"
