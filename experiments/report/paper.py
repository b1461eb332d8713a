"""Claims as tables for papers: LaTeX (booktabs) and Markdown, beside the figures as vector PDF."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import store
from experiments.report.content import VERDICTS, effect, headline_first, interval_of, shown
from experiments.report.markdown import escaped

COLUMNS = ("Claim", "Source", "Verdict", "Estimate", "Interval", "Level", "Pairs", "Scope")
SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "×": r"\(\times\)", "−": r"\(-\)", "–": "--", "…": r"\dots{}",
}  # fmt: skip


def write(folder: Path, claims: Sequence[Mapping[str, Any]]) -> None:
    """Write `claims.tex` and `claims.md`, or nothing without claims."""
    if claims:
        store.write_atomic(folder / "claims.tex", latex(claims))
        store.write_atomic(folder / "claims.md", markdown(claims))


def rows(claims: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The claims as text under `COLUMNS`, the headline first."""
    return [
        [
            claim["title"],
            claim["source"],
            VERDICTS[claim["verdict"]],
            "–" if claim["estimate"] is None else effect(claim, claim["estimate"]),
            interval_of(claim),
            "–" if claim["level"] is None else f"{100 * claim['level']:.4g} %",
            str(claim["pairs"]),
            claim["scope"],
        ]
        for claim in headline_first(claims)
    ]


def tex(text: str) -> str:
    """Text that means only itself in LaTeX, on one line."""
    return "".join(SPECIAL.get(c, c) for c in " ".join(shown(text).split()))


def latex(claims: Sequence[Mapping[str, Any]]) -> str:
    """A table to be put in by `input`; it needs the package booktabs."""
    body = [" & ".join(map(tex, row)) + r" \\" for row in rows(claims)]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            r"\begin{tabular}{p{0.3\linewidth}llrrrrl}",
            r"\toprule",
            " & ".join(COLUMNS) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def markdown(claims: Sequence[Mapping[str, Any]]) -> str:
    """The same as a Markdown table."""
    lines = [COLUMNS, ("---", "---", "---", "---:", "---:", "---:", "---:", "---")]
    text = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([*text, *("| " + " | ".join(map(escaped, row)) + " |" for row in rows(claims)), ""])
