"""What may be set about evaluation, with its ranges."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from curate.config import EndpointConfig

METRICS = {  # by kind of suite, as `evaluate.evaluate` gives them
    "exact": ("em", "em_format_free", "nll", "entropy", "entropy_first", "confident"),
    "likelihood": ("nll", "nll_answer", "gap"),
    "text": ("accuracy", "perplexity", "nll"),
    "writing": ("grammatical", "consistent"),
    "pairwise": ("preferred_or_tie", "win", "tie", "lose"),
    "choice": ("accuracy", "accuracy_norm", "chance"),
    "checks": ("passed", "words"),
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SuiteConfig(_Strict):
    """One suite: a part of the micro-world (`world`), a JSON/JSONL file of questions and references (`path`), or a
    part of what goes with running text (`text`, see suites/text.py; `entities` says how many its probes ask about);
    `checks` bring their own instructions, and write `max_new_tokens` at most.
    With `at: end` it is asked before training and at the end only, not at the points of the curve. `items` caps how
    many of it are asked anywhere.
    """

    ood: bool
    world: str | None = None
    path: str | None = None
    text: str | None = None
    entities: int | None = Field(None, gt=0)
    metrics: Literal["exact", "likelihood", "text", "writing", "pairwise", "choice", "checks"] = "exact"
    at: Literal["end"] | None = None
    items: int | None = Field(None, gt=0)
    max_new_tokens: int | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _one_source(self):
        if self.metrics in ("choice", "checks") and self.ood:
            raise ValueError(
                f"metrics: {self.metrics} is of another scale than likelihoods and in no mean; set ood: false"
            )
        if self.metrics != "checks" and self.max_new_tokens is not None:
            raise ValueError("max_new_tokens: only metrics: checks lets the model write here; set it to null")
        if self.metrics == "checks":
            if self.world or self.path or self.text:
                raise ValueError("metrics: checks asks instructions of its own; leave out world, path and text")
            return self
        if self.metrics == "choice" and self.path is None:
            raise ValueError("metrics: choice is of a file of questions with options; give path")
        if [self.world, self.path, self.text].count(None) != 2:
            raise ValueError("world, path, text: give exactly one of them as the suite's source")
        if self.metrics in ("text", "writing") and self.text is None:
            raise ValueError(f"metrics: {self.metrics} is of running text; give a suite whose source is text")
        if self.metrics == "pairwise" and (self.path is None or self.ood):
            raise ValueError(
                "metrics: pairwise compares with the answers of a file and is in no mean; give path and ood: false"
            )
        return self


class BestPoint(_Strict):
    """Which curve point is a run's best: a validation metric and its direction."""

    suite: str
    metric: str
    mode: Literal["max", "min"]


class GenerateConfig(_Strict):
    """What the tuned model is let answer in its own words at the end, and how often."""

    suite: str
    prompts: int = Field(gt=0)
    samples: int = Field(gt=1)
    max_new_tokens: int = Field(gt=0)
    temperature: float = Field(gt=0)


class PairwiseConfig(_Strict):
    """Whose answers the tuned model's are compared with at the end, by which judge."""

    suite: str
    questions: int = Field(gt=0)
    max_new_tokens: int = Field(gt=0)
    endpoint: EndpointConfig


class Probe(_Strict):
    """What counts as having learnt the text: a metric (the more the better) and where it has to get."""

    suite: str
    metric: str
    at_least: float


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
    probe: Probe | None = None
    gradients: bool = False
    allow_overlap: list[str] = []
    generate: GenerateConfig | None = None
    pairwise: PairwiseConfig | None = None

    @model_validator(mode="after")
    def _consistent(self):
        if self.best.suite not in self.suites:
            raise ValueError(f"best.suite: {self.best.suite!r} is no suite; give one of {', '.join(self.suites)}")
        if self.probe and self.probe.suite not in self.suites:
            raise ValueError(f"probe.suite: {self.probe.suite!r} is no suite; give one of {', '.join(self.suites)}")
        if self.suites[self.best.suite].ood:
            raise ValueError(f"best.suite: {self.best.suite!r} is what is tested; choose by one that is not ood")
        if self.suites[self.best.suite].at == "end":
            raise ValueError(f"suites.{self.best.suite}.at=end: it chooses the best point, so set it to null")
        if self.primary.count("/") != 1:
            raise ValueError(f"primary: {self.primary!r} is no metric; give suite/metric, as in ood/em")
        if not any(s.ood for s in self.suites.values()):
            raise ValueError("suites: none is marked ood: true; mark at least one")
        if late := [name for name, s in self.suites.items() if s.ood and s.at == "end"]:
            raise ValueError(f"suites.{late[0]}.at=end: an OOD suite is asked at every point; set it to null")
        if "ood" in self.suites:
            raise ValueError("suites: 'ood' is the name of the mean of the OOD suites; choose another")
        self._judged()
        self._measured()
        if self.generate is None:
            return self
        worlds = [name for name, suite in self.suites.items() if suite.world]
        if self.generate.suite not in worlds:
            raise ValueError(
                f"generate.suite: {self.generate.suite!r} is no suite of the embedded world, whose styles are known;"
                f" give one of {', '.join(worlds)}"
            )
        if "output" in self.suites:
            raise ValueError("suites: 'output' is the name of what the model generates; choose another")
        return self

    def _measured(self) -> None:
        """What leads, and what chooses a point, is measured: else it would be missed when the training is over."""
        suite, _, metric = self.primary.partition("/")
        asked = [("best", self.best.suite, self.best.metric), ("primary", suite, metric)]
        if self.probe:
            asked.append(("probe", self.probe.suite, self.probe.metric))
        of_ood = [set(METRICS[s.metrics]) for s in self.suites.values() if s.ood]
        for key, suite, metric in asked:
            if suite in self.suites:
                known = set(METRICS[self.suites[suite].metrics])
            elif suite == "ood":
                known = set.intersection(*of_ood)
            else:
                continue  # what is measured beside the suites
            if metric not in known:
                raise ValueError(f"{key}: {suite} has no metric {metric!r}; give one of {', '.join(sorted(known))}")

    def _judged(self) -> None:
        """What a judge compares is asked at the end only: exactly one suite of that kind, and none else of its name."""
        compared = [name for name, suite in self.suites.items() if suite.metrics == "pairwise"]
        if compared != ([self.pairwise.suite] if self.pairwise else []):
            given = f"suite={self.pairwise.suite}" if self.pairwise else "null"
            raise ValueError(
                f"pairwise: {given}, but the suites with metrics: pairwise are {', '.join(compared) or '(none)'};"
                " name the one that there is"
            )
        for key, name in (("best", self.best.suite), ("probe", self.probe and self.probe.suite)):
            if name in compared:
                raise ValueError(f"{key}.suite: {name!r} is judged at the end only, not on the curve; choose another")
