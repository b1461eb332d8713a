"""What may be set about evaluation, with its ranges."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SuiteConfig(_Strict):
    """One suite: a part of the micro-world (`world`), or a JSON/JSONL file of questions and references (`path`)."""

    ood: bool
    world: str | None = None
    path: str | None = None
    metrics: Literal["exact", "likelihood"] = "exact"

    @model_validator(mode="after")
    def _one_source(self):
        if (self.world is None) == (self.path is None):
            raise ValueError("world, path: give exactly one of them as the suite's source")
        return self


class BestPoint(_Strict):
    """Which curve point is a run's best: a validation metric and its direction."""

    suite: str
    metric: str
    mode: Literal["max", "min"]


class EvaluationConfig(_Strict):
    """Suites by name, how many of their items are asked, and what counts as the best point."""

    suites: dict[str, SuiteConfig]
    items: int = Field(gt=0)
    point_items: int = Field(gt=0)
    max_reference_tokens: int | None = Field(None, gt=0)
    token_budget: int = Field(gt=0)
    best: BestPoint
    primary: str
    mode: Literal["max", "min"]
    must_move: bool = False
    gradients: bool = False
    allow_overlap: list[str] = []

    @model_validator(mode="after")
    def _consistent(self):
        if self.best.suite not in self.suites:
            raise ValueError(f"best.suite: {self.best.suite!r} is no suite; give one of {', '.join(self.suites)}")
        if self.primary.count("/") != 1:
            raise ValueError(f"primary: {self.primary!r} is no metric; give suite/metric, as in ood/em")
        if not any(s.ood for s in self.suites.values()):
            raise ValueError("suites: none is marked ood: true; mark at least one")
        if "ood" in self.suites:
            raise ValueError("suites: 'ood' is the name of the mean of the OOD suites; choose another")
        return self
