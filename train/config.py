"""What may be set about models and training, with its ranges: checked before anything is read or built."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LoraConfig(_Strict):
    """Low-rank adapters (arXiv:2106.09685), by PEFT; `dora` trains the weights' magnitudes too (arXiv:2402.09353)."""

    r: int = Field(gt=0)
    alpha: int = Field(gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    target: str | list[str] = "all-linear"
    dora: bool = False


class PretrainingConfig(_Strict):
    """The embedded base model and how it is pre-trained; see train/pretrain.py."""

    hidden: int = Field(gt=0)
    layers: int = Field(gt=0)
    heads: int = Field(gt=0)
    mlp: int = Field(gt=0)
    lr: float = Field(gt=0)
    batch: int = Field(gt=0)
    length: int = Field(gt=1)
    warmup: int = Field(gt=0)
    cooldown: int = Field(gt=0)
    max_steps: int = Field(gt=0)
    probe_every: int = Field(gt=0)
    cools_at: dict[str, float]
    pass_at: dict[str, float]
    beta2: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    checkpoint_every: int = Field(gt=0)

    @model_validator(mode="after")
    def _heads_divide(self):
        if self.hidden % self.heads:
            raise ValueError(f"heads: {self.heads} does not divide hidden = {self.hidden}; give a divisor")
        return self


class ScratchConfig(_Strict):
    """A model that has read nothing, and its tokeniser; see train/scratch.py."""

    hidden: int = Field(gt=0)
    layers: int = Field(gt=0)
    head: int = Field(gt=0)
    mlp: int = Field(gt=0)
    vocabulary: int = Field(ge=300)

    @model_validator(mode="after")
    def _heads_divide(self):
        if self.hidden % self.head:
            raise ValueError(f"head: {self.head} does not divide hidden = {self.hidden}; give a divisor")
        return self


class TrainingConfig(_Strict):
    """Budget and optimiser of one run. Exactly one of steps, epochs and tokens is the budget."""

    steps: int | None = Field(None, gt=0)
    epochs: float | None = Field(None, gt=0)
    tokens: int | None = Field(None, gt=0)
    points: list[int | float]
    batch_size: int = Field(gt=0)
    accumulate: int = Field(1, gt=0)
    lr: float = Field(gt=0)
    warmup: int = Field(ge=0)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    max_length: int = Field(gt=1)
    group_by_length: bool = False
    bf16: bool = False
    tokens_trained: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _one_budget(self):
        given = [k for k in ("steps", "epochs", "tokens") if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(f"steps, epochs, tokens: {len(given)} of them are set; set one, the others to null")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate: {self.accumulate} does not divide batch_size={self.batch_size}; give a divisor"
            )
        for p in self.points:
            if p <= 0 or (isinstance(p, float) and p > 1):
                raise ValueError(f"points: {p} is out of range; give steps >= 1 (whole numbers) or shares in (0, 1]")
        return self


class RewardModelConfig(_Strict):
    """How the reward model of an experiment is trained on preference pairs; see train/reward_model.py."""

    backbone: str | None = None
    trained_layers: int | None = Field(None, ge=0)
    epochs: float = Field(gt=0)
    lr: float = Field(gt=0)
    head_lr: float | None = Field(None, gt=0)
    batch_size: int = Field(gt=0)
    max_length: int = Field(gt=0)
    max_pairs: int | None = Field(None, gt=0)
    held_out: float = Field(gt=0, lt=1)
    template: dict[str, str] | None = None
    reference: TrainingConfig | None = None
    length_orthogonal: bool = False
    padding: float = Field(0.0, ge=0)
    unescape: bool = False
    bf16: bool = False


class ModelConfig(_Strict):
    """The model that is fine-tuned."""

    kind: Literal["micro", "smollm2", "hf", "scratch"]
    path: str | None = None
    lora: LoraConfig | None = None
    pretraining: PretrainingConfig | None = None
    scratch: ScratchConfig | None = None
    reward: RewardModelConfig
    save: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"
    attention: Literal["eager", "sdpa", "flash_attention_2"] | None = None
    checkpointing: bool = False

    @model_validator(mode="after")
    def _complete(self):
        if self.dtype == "bfloat16" and self.lora is None:
            raise ValueError("dtype=bfloat16: too coarse for weights that are trained; give lora, or dtype=float32")
        if self.attention == "flash_attention_2" and self.dtype != "bfloat16":
            raise ValueError(
                f"attention=flash_attention_2: knows no {self.dtype}; set dtype=bfloat16, or attention=sdpa"
            )
        if self.kind == "hf" and not self.path:
            raise ValueError("path: missing; give a Hugging Face folder or hub id, as in model=hf model.path=gpt2")
        if self.kind == "micro" and self.pretraining is None:
            raise ValueError("pretraining: missing; model=micro needs it")
        if (self.kind == "scratch") != (self.scratch is not None):
            raise ValueError("scratch: its sizes belong to kind=scratch, and to no other; choose model=scratch")
        return self
