"""The report as one HTML file that asks for nothing: Jinja2 templates, all that they are given is escaped.

Scripts are let run by their hash alone (Content-Security-Policy), so that even a script that found its way into the
page would stay text.
"""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from experiments.report import texts
from experiments.report.content import VERDICTS, Content, evidence, headline_first, shown
from experiments.report.figures import COLOURS, Drawing
from experiments.report.folders import Folders

TEMPLATES = Path(__file__).parent / "templates"
EVALUATES = " 'unsafe-eval'"


@dataclass(frozen=True)
class Section:
    """A part of the page that another module makes. `html`, `style` and `script` go into the page as they are.

    Args:
        html: from a template of `environment`, which escapes; whatever a script is to read goes in by `tojson`.
        script: runs when the page is loaded, after the page's own; a module of no kind, without imports.
        evaluates: whether the script needs `eval`, as Bokeh's callbacks do.
    """

    title: str
    html: Markup
    style: str = ""
    script: str = ""
    evaluates: bool = False


def environment() -> jinja2.Environment:
    """Jinja2 as all pages use it: everything is escaped, cut where it is long, and a missing name is an error.

    The filters `slug`, `base64` and `together` make an id of a heading, a text fit for a data: address, and a cell of a
    table that breaks only before a parenthesis.
    """
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=_finalized,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {
        "together": together,
        "slug": slug,
        "base64": lambda text: Markup(base64.b64encode(text.encode()).decode()),
    }
    return made


def _finalized(value: Any) -> Any:
    return shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def together(text: str) -> str:
    """The text with its spaces unbreakable, but for those before a parenthesis."""
    return text.replace(" ", "\u00a0").replace("\u00a0(", " (")


def in_base64(text: str) -> Markup:
    """The text's UTF-8 in base64."""
    return Markup(base64.b64encode(text.encode()).decode())


def slug(text: str) -> str:
    """Lower case words joined by hyphens."""
    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))


def page(
    content: Content, drawings: Sequence[Drawing], sections: Sequence[Section] = (), folders: Folders | None = None
) -> str:
    """The page; `sections` stand after the report's own figures and tables, `folders` is what runs left beside them."""
    templates = environment()
    scripts = [(TEMPLATES / "report.js").read_text(encoding="utf-8"), *(one.script for one in sections if one.script)]
    rules = [(TEMPLATES / "report.css").read_text(encoding="utf-8"), *(one.style for one in sections if one.style)]
    found = texts.tables_of(content)
    return templates.get_template("report.html").render(
        title=content.title or content.name,
        policy=_policy(scripts, any(one.evaluates for one in sections)),
        style=Markup(_variables() + "\n".join(rules)),
        scripts=[Markup(script) for script in scripts],
        content=content,
        claims=[_claim(claim) for claim in headline_first(content.claims)],
        drawings=drawings,
        tables=found,
        sections=sections,
        folders=folders or Folders(),
        texts=texts,
    )


def alone(title: str, section: Section, back: str | None = None) -> str:
    """A page of one section; `back` is the address of the report beside it."""
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    return (
        environment()
        .get_template("alone.html")
        .render(
            title=title,
            policy=_policy([section.script], section.evaluates),
            style=Markup(_variables() + f"{style}\n{section.style}"),
            script=Markup(section.script),
            section=section,
            back=back,
        )
    )


def _claim(claim: Mapping[str, Any]) -> dict[str, Any]:
    """What the templates say of a claim."""
    said = {"verdict_class": claim["verdict"], "verdict": VERDICTS[claim["verdict"]], "evidence": evidence(claim)}
    return {**claim, **said, "details": texts.details(claim)}


def _variables() -> str:
    """The palette as CSS variables, for light and dark."""
    light, dark = (" ".join(f"--{name}: {value[i]};" for name, value in COLOURS.items()) for i in (0, 1))
    return f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"


def _policy(scripts: Sequence[str], evaluates: bool) -> str:
    """No request to anywhere, and no script but these."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts
    )
    allowed = f"{hashes}{EVALUATES * evaluates}"
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; script-src {allowed};"
        " base-uri 'none'; form-action 'none'"
    )
