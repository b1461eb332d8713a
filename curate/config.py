"""Configuration of the curation groups (`conf/{data,noise,scorer,selection,duplication}`), checked before any work.

Types are strict and unknown keys are errors. Keys that a kind does not use are set to null, so that two configs which
mean the same are equal.
"""

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

SelectionKind = Literal[
    "all", "threshold", "top_k", "top_fraction", "band", "stratified", "diversity", "from_file",
    "random", "random_length_matched", "longest", "clean",
]  # fmt: skip
NoiseKind = Literal[
    "none", "swapped_response", "near_miss", "truncated", "off_format", "contradictory", "mixture", "correlated"
]
ScorerKind = Literal[
    "none", "length", "surface", "random", "oracle", "reward_model", "judge", "ifd", "perplexity", "embedding",
    "ensemble", "own",
]  # fmt: skip
ExampleField = Literal["instruction", "input", "output", "category", "near_miss"]


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataConfig(_Config):
    name: Literal["microworld", "alpaca", "file", "text", "world_text", "preferences"]
    path: str | None = None
    root: str | None = None
    rows: int | None = Field(default=None, ge=1)
    facts: Literal["all", "known", "rare", "unknown"] = "all"
    max_bad_share: float = Field(default=0.05, ge=0, le=1)
    fields: dict[ExampleField, str | None] | None = None
    pairs: str | None = None
    pairs_valid: str | None = None
    template: dict[str, str]
    paraphrases: list[str] = []
    styles: bool = False
    entities: int | None = Field(default=None, ge=1)
    wrong_share: float | None = Field(default=None, ge=0, le=1)
    words: int | None = Field(default=None, ge=24)
    drop_asked: bool = False
    side: Literal["chosen", "rejected"] | None = None
    max_length_ratio: float | None = Field(default=None, ge=1)

    @field_validator("template")
    @classmethod
    def _placeholders(cls, template: dict[str, str]) -> dict[str, str]:
        if unknown := set(template) - {"without_input", "with_input"}:
            raise ValueError(f"{min(unknown)}: there is no such template; give without_input and with_input")
        for key, needed in (("without_input", ["{instruction}"]), ("with_input", ["{instruction}", "{input}"])):
            missing = [name for name in needed if name not in template.get(key, "")]
            if missing:
                raise ValueError(f"{key} must hold {' and '.join(missing)}")
        return template

    @field_validator("paraphrases")
    @classmethod
    def _paraphrases(cls, paraphrases: list[str]) -> list[str]:
        for text in paraphrases:
            if "{instruction}" not in text or text == "{instruction}":
                raise ValueError(f"{text!r} must hold {{instruction}} and something more")
        return paraphrases

    @model_validator(mode="after")
    def _has_path(self) -> "DataConfig":
        if self.name == "microworld" and self.path:
            mend = "add data=alpaca, or data=file, for a file of yours, or set it to null"
            raise ValueError(f"path={self.path}: data=microworld makes rows of its own and reads no file; {mend}")
        if self.name == "text" and not self.path:
            raise ValueError("path=null: which stories? set data.path=FILE (.txt, ...) or hub:roneneldan/TinyStories")
        told = {name: getattr(self, name) for name in ("entities", "wrong_share", "words")}
        if self.name == "world_text":
            if missing := [name for name, value in {**told, "rows": self.rows}.items() if value is None]:
                raise ValueError(f"{missing[0]}=null: world_text needs it; see conf/data/world_text.yaml")
            return self
        if given := [name for name, value in told.items() if value is not None]:
            raise ValueError(f"{given[0]}={told[given[0]]}: only data=world_text reads it; set it to null")
        if (self.name == "preferences") != (self.side is not None):
            mend = "set it to chosen or rejected" if self.side is None else "set it to null"
            raise ValueError(f"side={self.side or 'null'}: whose responses? data=car, and only that, has two; {mend}")
        if self.max_length_ratio is not None and self.name != "preferences":
            raise ValueError(f"max_length_ratio={self.max_length_ratio}: only data=car has two; set it to null")
        if self.name != "microworld" and not self.path:
            raise ValueError("path=null: which file? set data.path=FILE (.json, .jsonl, .csv or .parquet) or hub:NAME")
        if self.name != "microworld" and self.facts != "all":
            raise ValueError(f"facts={self.facts}: only the embedded world says which facts are known; set it to all")
        if self.styles and self.name != "microworld":
            raise ValueError(f"styles=true: {self.name} says what it says; only data=microworld has styles to choose")
        return self


class NoiseConfig(_Config):
    kind: NoiseKind
    rate: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _has_kind(self) -> "NoiseConfig":
        if self.kind == "none" and self.rate > 0:
            raise ValueError(f"rate={self.rate}: noise of which kind? choose one, for example noise=mixture")
        return self


class EndpointConfig(_Config):
    """A server that speaks OpenAI's chat protocol, and what may be spent there."""

    model: str
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: int = Field(default=8, ge=1)
    timeout: float = Field(default=60.0, gt=0)
    max_retries: int = Field(default=5, ge=0)
    json_schema: Literal["auto", "always", "never"] = "auto"
    max_tokens: int = Field(default=128, ge=1)
    prices: dict[str, list[float]] | None = None
    max_cost: float | None = Field(default=None, ge=0)

    @field_validator("prices")
    @classmethod
    def _pairs(cls, prices: dict[str, list[float]] | None) -> dict[str, list[float]] | None:
        for name, pair in (prices or {}).items():
            if len(pair) != 2 or min(pair) < 0:
                raise ValueError(f"{name} must be [dollars per million tokens in, the same out]")
        return prices

    @model_validator(mode="after")
    def _can_stop(self) -> "EndpointConfig":
        if self.max_cost is not None and self.model not in (self.prices or {}):
            raise ValueError(
                f"max_cost={self.max_cost}: what does {self.model} cost? set prices={{{self.model}: [in, out]}}"
            )
        return self


# The keys that a kind of scorer reads, beside `kind`.
SCORER_KEYS: dict[str, tuple[str, ...]] = {
    "surface": ("feature",),
    "reward_model": ("features", "model", "template", "dtype"),
    "judge": ("endpoint",),
    "ifd": ("model", "max_length", "max_ifd"),
    "perplexity": ("model", "max_length"),
    "embedding": ("model", "max_length", "target", "neighbours"),
    "ensemble": ("members",),
    "own": ("target", "options"),
}


class ScorerConfig(_Config):
    """What gives a row its score. Keys that a kind does not read are put back to their defaults."""

    kind: ScorerKind
    feature: str = "words"
    features: list[Literal["head", "likelihood"]] | None = Field(default=None, min_length=1)
    model: str | None = None
    template: Literal["chapter", "pair", "chat"] = "chapter"
    dtype: Literal["float32", "bfloat16"] = "float32"
    endpoint: EndpointConfig | None = None
    max_length: int = Field(default=512, ge=8)
    max_ifd: float | None = Field(default=1.0, gt=0)
    target: str | None = None
    neighbours: int = Field(default=1, ge=1)
    members: list["ScorerConfig"] | None = Field(default=None, min_length=2)
    options: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _only_what_counts(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = dict(values)
        own = values.pop("_target_", None)  # Hydra's way of naming a function
        if own is not None:
            values = {"kind": "own", "target": own, "options": values.get("options")}
        used = SCORER_KEYS.get(str(values.get("kind")), ())
        return {key: value for key, value in values.items() if key not in cls.model_fields or key in ("kind", *used)}

    @model_validator(mode="after")
    def _is_complete(self) -> "ScorerConfig":
        if self.kind == "judge" and self.endpoint is None:
            raise ValueError("endpoint=null: which server and model? set scorer.endpoint.model and .base_url")
        if self.kind == "ensemble" and self.members is None:
            raise ValueError("members=null: which scorers? give a list such as [{kind: length}, {kind: ifd, model: X}]")
        if self.kind == "own" and "." not in (self.target or ""):
            raise ValueError(f"_target_={self.target}: which function? set scorer._target_=MODULE.FUNCTION")
        return self

    def models(self) -> list["ScorerConfig"]:
        """This scorer, or all members of an ensemble."""
        return [one for member in self.members for one in member.models()] if self.members else [self]


# The keys that a kind of selection reads; those that are not here read k and fraction.
SELECTION_KEYS: dict[str, tuple[str, ...]] = {
    "all": (),
    "threshold": ("threshold",),
    "top_k": ("k",),
    "band": ("low", "high"),
    "from_file": ("path", "k"),
    "diversity": ("k", "fraction", "floor", "encoder"),
}
_SIZED = ("top_fraction", "stratified", "diversity", "random", "random_length_matched", "longest", "clean")


class SelectionConfig(_Config):
    kind: SelectionKind
    k: int | None = Field(default=None, ge=1)
    fraction: float | None = Field(default=None, gt=0, le=1)
    threshold: float | None = None
    low: float | None = Field(default=None, ge=0, le=1)
    high: float | None = Field(default=None, ge=0, le=1)
    floor: float | None = Field(default=None, ge=0, lt=1)
    path: str | None = None
    encoder: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _only_what_counts(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        used = SELECTION_KEYS.get(str(values.get("kind")), ("k", "fraction"))
        drop = {"k", "fraction", "threshold", "low", "high", "floor", "path", "encoder"} - {*used}
        if values.get("k") is not None and "k" in used:
            drop.add("fraction")
        return {key: None if key in drop else value for key, value in values.items()}

    @model_validator(mode="after")
    def _has_size(self) -> "SelectionConfig":
        if self.kind == "threshold" and self.threshold is None:
            raise ValueError("threshold=null: which score is good enough? set selection.threshold=1.5")
        if self.kind == "top_k" and self.k is None:
            raise ValueError("k=null: how many rows? set selection.k=1000")
        if self.kind == "band" and not (self.low is not None and self.high is not None and self.low < self.high):
            raise ValueError(f"low={self.low} high={self.high}: give two quantiles of the scores, such as 0.5 and 0.9")
        if self.kind == "from_file" and self.path is None:
            raise ValueError("path=null: whose selection? set selection.path=FILE")
        if self.kind in _SIZED and self.k is None and self.fraction is None:
            raise ValueError("k=null: how many rows? set selection.k=1000 or selection.fraction=0.177")
        return self


class RewriteConfig(_Config):
    """What becomes of rows that the selection did not keep: dropped (none), or repaired and kept."""

    by: Literal["none", "ledger", "teacher"] = "none"
    endpoint: EndpointConfig | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> "RewriteConfig":
        if self.by == "teacher" and self.endpoint is None:
            raise ValueError("endpoint=null: which teacher? set rewrite.endpoint.model and .base_url")
        return self


class DedupConfig(_Config):
    """Near-duplicates inside the pool; `near` null keeps them."""

    near: float | None = Field(default=None, gt=0, le=1)
    by: Literal["prompt+response", "prompt"] = "prompt+response"


class DecontaminateConfig(_Config):
    """Rows whose prompt stands in an evaluation file, by word n-grams or as a near-duplicate."""

    paths: list[str] = []
    ngram: int = Field(default=13, ge=1)
    near: float = Field(default=0.8, gt=0, le=1)


FEW = 16  # rows left at rate 1.0 where k says nothing: as many as the experiments on that rate have


class DuplicationConfig(_Config):
    mode: Literal["replace", "append"] = "replace"
    rate: float = Field(default=0.0, ge=0, le=1)
    source: Literal["random", "concentrated", "important"] = "random"
    k: int | None = Field(default=None, ge=1)
    kind: Literal["exact", "near"] = "exact"
    stratum: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _few_are_left(cls, given: Any) -> Any:
        """At rate 1.0 nothing but copies is left; a sweep over rates that gets there need not say of how many rows."""
        if not isinstance(given, dict) or given.get("k") is not None:
            return given
        only_copies = given.get("rate") == 1 and given.get("mode", "replace") == "replace"
        return {**given, "k": FEW} if only_copies else given

    @model_validator(mode="after")
    def _is_complete(self) -> "DuplicationConfig":
        if self.rate == 0:
            return self
        if self.k is None and self.source == "concentrated":
            raise ValueError("k=null: copies of how many rows? set duplication.k=16")
        if self.stratum is None and self.source == "important":
            raise ValueError("stratum=null: which category is important? set duplication.stratum=NAME")
        return self


def explain(err: ValidationError, prefix: str = "") -> str:
    """One line for the first mistake: key, value, and what it should be. `prefix` is the group, as in `noise`."""
    errors = err.errors(include_url=False)
    first = errors[0]
    # pydantic marks a wrong dictionary key with a last part "[key]"
    parts = [prefix, *(str(part) for part in first["loc"] if part != "[key]")]
    key = ".".join(part for part in parts if part)
    value = "null" if first["input"] is None else str(first["input"])
    if first["type"] == "extra_forbidden":
        text = f"{key}={value}: there is no such key; remove it or correct its spelling"
    elif first["type"] == "missing":
        text = f"{key} is not set: give it a value"
    elif first["type"] == "value_error" and not first["loc"]:
        text = f"{prefix}." * bool(prefix) + str(first["ctx"]["error"])
    elif first["type"] == "value_error":
        said = str(first["ctx"]["error"])
        own = isinstance(first["input"], dict) and re.match(r"\w[\w.]*[=:]", said)  # begins with a key of this part
        text = f"{key}.{said}" if own else f"{key}: {said}"
    else:
        text = f"{key}={value}: {first['msg'].replace('Input ', '', 1)}"
    more = len(errors) - 1
    return " ".join(text.split()) + (f" (and {more} more)" if more else "")
