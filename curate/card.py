"""The data card of a curated file: where its rows come from and what was done, without a word about the machine.

Files are named and hashed, never placed; what looks like a secret is struck out; there is no date, so that the same job
writes the same card.
"""

import re
from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset

from curate.example import column
from curate.reading import HUB

if TYPE_CHECKING:
    from curate.job import Job

REDACTED = "[redacted]"
_PACKAGES = ("quality-vs-quantity", "numpy", "datasets", "pyarrow", "scipy")
_MODEL_PACKAGES = ("torch", "transformers", "tokenizers")
_MODEL_SCORERS = ("reward_model", "ifd", "perplexity", "embedding", "ensemble", "own")
_LICENCES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "DATA_LICENSE", "COPYING")
# the name of a setting that holds a secret; `api_key_env` and `max_tokens` hold none
_SECRET_NAME = re.compile(r"(?i)(?:^|[._-])(?:\w*key|\w*token|\w*secret|pass(?:word|wd)?|authorization|credentials?)$")
_ASSIGNED = re.compile(r"(?i)\b([\w.-]+)(\s*[=:]\s*)((?:bearer\s+)?[^\s,;}\]]+)")
_SECRETS = re.compile(
    r"\b(?:sk|pk|rk|hf|ghp|gho|ghs|github_pat|glpat|xox[abp])[-_][\w-]{8,}"  # keys that say what they are
    r"|\bAKIA[0-9A-Z]{12,}|\bAIza[\w-]{20,}"
    r"|(?i:\bbearer\s+)\S+"
    r"|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]+"  # JSON web tokens
    r"|(?<=://)[^/\s@]+@"  # user and password before a host
    r"|\b(?=[\w-]*[a-z])(?=[\w-]*[A-Z])(?=[\w-]*\d)[\w-]{32,}\b"  # long and of all sorts of letters
)
_PLACE = re.compile(r"(?:(?<![\w.:/])(?:~|[A-Za-z]:)?|(?<=file:/)/)[/\\](?:[^\s/\\=,;'\"\]}]+[/\\])*")


def redact(text: str) -> str:
    """The text without secrets, absolute paths cut to the names of their files."""
    text = _ASSIGNED.sub(lambda m: f"{m[1]}{m[2]}{REDACTED}" if _SECRET_NAME.search(m[1]) else m[0], text)
    return _PLACE.sub("", _SECRETS.sub(REDACTED, text))


def clean(value: Any, name: str = "") -> Any:
    """The same for settings, however nested; those whose name says that they are secret lose their value."""
    if isinstance(value, Mapping):
        return {str(key): clean(one, str(key)) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(one, name) for one in value]
    if isinstance(value, str):
        return REDACTED if value and _SECRET_NAME.search(name) else redact(value)
    return value


def card(
    out: Path, pool: Dataset, kept: np.ndarray, *, job: "Job", facts: Mapping[str, Any], figures: Mapping[str, Any]
) -> dict[str, Any]:
    """The card's facts, fit for JSON. `pool`, `kept` and `facts` as in `audit_report.report`, `figures` of `audit`."""
    asked = job.scorer.model_dump(exclude_defaults=True) | {"kind": job.scorer.kind}
    packages = _PACKAGES + (_MODEL_PACKAGES if job.scorer.kind in _MODEL_SCORERS else ())
    noise = Counter(kind for kind in column(pool.select(kept), "noise_kind") if kind)
    return {
        "file": {"name": out.name, "sha256": _hash(out), "layout": job.layout},
        "source": {"name": _named(job.source), "sha256": _hash(Path(job.source)), "licence": _licence(job, facts)},
        "rows": {**(facts.get("rows") or {}), "accounts": redact(str(facts["accounts"]))},
        "tokens": figures["tokens"],
        "noise": {
            "planted": job.noise.model_dump() if job.noise.kind != "none" else None,
            "known in the rows kept": dict(sorted(noise.items())),
        },
        "near-duplicates": clean(job.dedup.model_dump()) if job.dedup.near is not None else None,
        "decontamination": clean(job.decontaminate.model_dump()) if job.decontaminate.paths else None,
        "scorer": clean(asked),
        "selection": clean(job.selection.model_dump(exclude_none=True)),
        "rewriting": clean(job.rewrite.model_dump(exclude_none=True)) if job.rewrite.by != "none" else None,
        "duplication": clean(job.duplication.model_dump(exclude_none=True)) if job.duplication.rate > 0 else None,
        "seed": job.seed,
        "versions": {name: found for name in packages if (found := _version(name))},
        "command": redact(f"python -m curate {facts['command']}".strip()),
        "audit": headline(figures),
    }


def headline(figures: Mapping[str, Any]) -> list[str]:
    """What the audit found, in a sentence each; the strongest departures from chance first."""
    rows = figures["rows"]
    found = [f"{rows['kept']} of {rows['before']} rows kept"]
    told = [m for m in figures["measures"] if m["beyond_chance"] and m["group"] != "score"]
    for measure in sorted(told, key=lambda m: m["p"])[:3]:
        found.append(f"{measure['name']}: {measure['kept']:.3g}, random {measure['random']:.3g}")
    lost = [m for m in told if m["group"] == "diversity" and m["change"] < 0]
    found.append(f"{len(lost)} measure{'s' * (len(lost) != 1)} of diversity below chance")
    for row in figures["noise"] or []:
        if row["kind"] in ("clean", "all noise"):
            found.append(
                f"{row['kind']} removed: {row['removed']} of {row['rows']} ({row['low']:.1%} to {row['high']:.1%})"
            )
    for row in figures["validity"]["rows"] or []:
        if row["kind"] == "all" and row["auroc"] is not None and row["scorer"] != "longer wins (characters)":
            found.append(f"AUROC of {row['scorer']}: {row['auroc']:.3f} ({row['low']:.3f} to {row['high']:.3f})")
    for row in (figures["pairs"] or {}).get("rows", []):
        if row["accuracy"] is not None and row["scorer"] != "longer wins (characters)":
            balanced = "" if row["balanced"] is None else f", {row['balanced']:.3f} balanced for length"
            found.append(f"pairwise accuracy of {row['scorer']}: {row['accuracy']:.3f}{balanced}")
    for effect in figures["bias"] or []:
        if effect["harmless"] and effect["p_holm"] is not None and effect["p_holm"] < 0.05:
            found.append(f"moved by {effect['edit']}: {effect['effect']:+.2f} standard deviations")
    return found


def card_text(found: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    parts = [f"# {_m(found['file']['name'])}", "\n".join(f"- {_m(line)}" for line in found["audit"])]
    parts.append(f"Of {_m(found['source']['name'])}: {_m(found['rows']['accounts'])}.")
    parts.append("\n".join(["| | |", "|---|---|", *(f"| {_m(key)} | {_m(text)} |" for key, text in _lines(found))]))
    parts.append(f"Made by\n\n{_fenced(found['command'])}")
    return "\n\n".join(parts) + "\n"


def _lines(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    lines = []
    for key, value in found.items():
        if key in ("audit", "command"):
            continue
        for name, one in value.items() if isinstance(value, Mapping) else [("", value)]:
            if one is not None and one != {} and one != [] and name != "accounts":
                lines.append((f"{key} {name}".strip(), str(one)))
    return lines


def _m(text: Any) -> str:
    """Text that means only itself in Markdown, on one line."""
    escaped = "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in str(text))
    return " ".join(escaped.split())


def _fenced(text: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text}\n{fence}"


def _named(source: str) -> str:
    return redact(source) if source.startswith(HUB) else Path(source).name


def _hash(path: Path) -> str | None:
    """SHA-256 of a file in hex; None if there is none, as for a data set of the hub."""
    if not path.is_file():
        return None
    hashed = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            hashed.update(block)
    return hashed.hexdigest()


def _licence(job: "Job", facts: Mapping[str, Any]) -> str | None:
    """As given, or the first line of the licence that lies beside the source."""
    if facts.get("licence"):
        return redact(str(facts["licence"]))
    for name in _LICENCES:
        path = Path(job.source).parent / name
        if not job.source.startswith(HUB) and path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            return f"{name}: {next((line.strip() for line in text.splitlines() if line.strip()), '')[:120]}"
    return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
