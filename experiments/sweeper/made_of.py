"""What a report was made of, kept in its folder, so that a rerun that has nothing new does not make it again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import store
from experiments.claim_files import Claim
from experiments.config import ExperimentConfig

from .plan import Plan

MADE_OF = ".made_of"
CODE = (".py", ".html", ".css", ".js")


def made_of(
    plan: Plan,
    experiment: ExperimentConfig,
    claims: Sequence[Claim],
    missing: dict[str, str],
    figures: str,
    command: str,
) -> str:
    """SHA-256 of all that a report depends on: what was planned, the records, the claims, how it is told, the code."""
    code = [path for path in sorted(Path(store.__file__).parent.rglob("*")) if path.suffix in CODE]
    told = {
        "code": [store.sha256(path.read_bytes()) for path in code],
        "cells": [[cell.run_id, cell.arm, dict(cell.seeds), dict(cell.levels)] for cell in plan.cells],
        "records": [store.sums(plan.root / run_id).get(store.RECORD) for run_id in plan.configs],
        "claims": [claim.model_dump(mode="json") for claim in claims],
        "experiment": [experiment.name, experiment.title, plan.config_yaml, plan.evaluation.model_dump(mode="json")],
        "tracking": next(iter(plan.configs.values())).tracking.model_dump(mode="json"),
        "rest": [command, missing, figures],
    }
    return store.sha256(store.canonical(told, indent=None).encode())


def verdicts(out: Path, of: str) -> list[dict[str, Any]] | None:
    """The content of `claims.json` where the report in `out` is whole and was made of just this, else None."""
    try:
        if (out / MADE_OF).read_text() != of or not (out / "index.html").exists():
            return None
        return json.loads((out / "claims.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
