"""A reward model from preference pairs: a sequence-classification head, and a likelihood that carries knowledge.

A head trained with the Bradley-Terry loss finds faults of form and misses wrong facts; the likelihood of the response
under a model tuned on the preferred responses finds wrong facts, as far as the base model knows the right ones. Both
are joined by a logistic regression on pairs that neither was trained on.
"""

import functools
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, PrinterCallback, Trainer
from transformers.trainer_utils import set_seed

from . import UserError
from .batches import IGNORED, Row, collate, encode, response_logits
from .config import RewardModelConfig
from .finetune import finetune, quiet_arguments
from .models import load_causal_lm, load_tokenizer


@dataclass(frozen=True)
class Pair:
    """One preference: a rendered prompt, the response that was preferred, the one that was not."""

    prompt: str
    chosen: str
    rejected: str


def train_reward_model(
    out: Path,
    backbone: str | Path,
    pairs: Sequence[Pair],
    config: RewardModelConfig,
    *,
    template: dict[str, str],
    seed: int,
    valid: Sequence[Pair] = (),
) -> dict[str, Any]:
    """Train the head and (with `config.reference`) a reference model into the folder `out`; returns its reward.json.

    `config.held_out` of the prompts is kept from both and serves for the joint weights and for the accuracies, half
    each; with `valid` pairs the accuracies are theirs. The weights come from a logistic regression on differences of
    features, chosen less rejected, without an intercept: the model of Bradley and Terry (1952) with two features.
    """
    started = time.perf_counter()
    if config.max_pairs:
        pairs = pairs[: config.max_pairs]
    train, fit, test = _split(pairs, config.held_out)
    if valid and config.reference is None:  # nothing is left to be held out for
        train = list(pairs)
    test = list(valid) or test
    if not train or not fit or not test:
        raise UserError(f"data.pairs: {len(pairs)} preference pairs are too few to train and test on; give at least 20")
    tokenizer = load_tokenizer(backbone)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    as_pair = tokenizer.cls_token_id is not None  # an encoder reads prompt and response as its two texts
    head = _train_head(backbone, tokenizer, train, config, seed)
    head.save_pretrained(out / "head")
    tokenizer.save_pretrained(out / "head")
    features = {"head": _margins(functools.partial(_head_scores, head), tokenizer, config.max_length)}
    if config.reference is not None:
        model, reference_tokenizer = load_causal_lm(backbone)
        chosen = list({(p.prompt, p.chosen): Row(p.prompt, p.chosen) for p in train}.values())
        finetune(model, reference_tokenizer, chosen, config.reference, seed, lambda *_: None)
        model.eval()
        model.save_pretrained(out / "reference")
        reference_tokenizer.save_pretrained(out / "reference")
        likelihood = functools.partial(_likelihoods, model)
        features["likelihood"] = _margins(likelihood, reference_tokenizer, config.max_length)
    on_test = np.column_stack([margin(test) for margin in features.values()])
    weights = np.ones(1)
    if len(features) > 1:
        weights = _joint_weights(np.column_stack([margin(fit) for margin in features.values()]))
    accuracy = {name: _accuracy(on_test[:, i]) for i, name in enumerate(features)}
    accuracy["joint"] = _accuracy(on_test @ weights)
    accuracy["longer_wins"] = _accuracy(_length_margins(test, lambda text: len(tokenizer(text)["input_ids"])))
    accuracy["more_words_win"] = _accuracy(_length_margins(test, lambda text: len(text.split())))
    card = {
        "features": list(features),
        "weights": dict(zip(features, map(float, weights), strict=True)),
        "template": template,
        "head_template": "pair" if as_pair else "joined",
        "max_length": config.max_length,
        "pairs": {"train": len(train), "weights": len(fit), "test": len(test)},
        "pairwise_accuracy": accuracy,
        "seed": seed,
        "train_s": time.perf_counter() - started,
    }
    (out / "reward.json").write_text(json.dumps(card, indent=1, sort_keys=True) + "\n")
    return card


def _split(pairs: Sequence[Pair], held_out: float) -> tuple[list[Pair], list[Pair], list[Pair]]:
    """Pairs for training, for the joint weights, for the accuracies; all pairs of a prompt go together."""
    prompts = list(dict.fromkeys(p.prompt for p in pairs))
    first, second = round(len(prompts) * (1 - held_out)), round(len(prompts) * (1 - held_out / 2))
    part = {prompt: 0 if i < first else 1 if i < second else 2 for i, prompt in enumerate(prompts)}
    a, b, c = ([p for p in pairs if part[p.prompt] == k] for k in range(3))
    return a, b, c


def _train_head(backbone: str | Path, tokenizer: Any, pairs: list[Pair], config: RewardModelConfig, seed: int) -> Any:
    set_seed(seed)
    try:
        head = AutoModelForSequenceClassification.from_pretrained(str(backbone), num_labels=1, dtype=torch.float32)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        mend = "give a folder or hub id"
        raise UserError(f"model.reward.backbone: {backbone} cannot be loaded ({reason}); {mend}") from error
    head.config.pad_token_id = tokenizer.pad_token_id
    both = _encode_pairs(tokenizer, pairs, config.max_length)
    if config.trained_layers == 0:
        return _fit_classifier(head.eval(), both, tokenizer.pad_token_id)
    _freeze(head, config.trained_layers)
    examples = [{"chosen": c, "rejected": r} for c, r in zip(both[: len(pairs)], both[len(pairs) :], strict=True)]
    with tempfile.TemporaryDirectory() as nowhere:
        trainer = _PairwiseTrainer(
            model=head,
            args=quiet_arguments(
                nowhere,
                seed,
                num_train_epochs=config.epochs,
                per_device_train_batch_size=config.batch_size,
                learning_rate=config.lr,
                lr_scheduler_type="linear",
                warmup_steps=0.1,  # a share of the steps
            ),
            train_dataset=examples,
            data_collator=lambda batch: _collate(
                [e["chosen"] for e in batch] + [e["rejected"] for e in batch], tokenizer.pad_token_id
            ),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    head.eval()
    return head


def _freeze(head: Any, trained_layers: int | None) -> None:
    """Leave only the last layers, the pooler and the classifier to be trained."""
    if trained_layers is None:
        return
    body = head.base_model
    layers = body.encoder.layer if hasattr(body, "encoder") else body.layers
    body.requires_grad_(False)
    for part in [*layers[len(layers) - trained_layers :], getattr(body, "pooler", None)]:
        if part is not None:
            part.requires_grad_(True)


@torch.inference_mode()
def _fit_classifier(head: Any, both: list[dict[str, list[int]]], pad: int) -> Any:
    """The body as it is: one pass for the features, then a logistic regression for the classifier's weights.

    The same Bradley-Terry model as below with the body frozen, at the cost of a single forward pass.
    """
    classifier = getattr(head, "classifier", None)
    if not isinstance(classifier, torch.nn.Linear):
        raise UserError("model.reward.trained_layers=0: this backbone has no linear classifier; give 1, more or null")
    seen: list[torch.Tensor] = []
    hook = classifier.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    features = np.empty((len(both), classifier.in_features))
    for indices in _batches(both):
        _head_scores(head, _collate([both[i] for i in indices], pad))
        features[indices] = seen.pop().float().numpy()
    hook.remove()
    margins = features[: len(both) // 2] - features[len(both) // 2 :]
    scale = margins.std(0) + 1e-9
    x, y = np.concatenate([margins, -margins]) / scale, np.repeat([1, 0], len(margins))
    weights = LogisticRegression(fit_intercept=False, C=0.1, max_iter=2000).fit(x, y).coef_[0] / scale
    classifier.weight.copy_(torch.as_tensor(weights)[None])
    classifier.bias.zero_()
    return head


class _PairwiseTrainer(Trainer):
    """The loss of Bradley and Terry: -log sigmoid(score of the chosen less score of the rejected)."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        scores = _head_scores(model, inputs)
        chosen, rejected = scores.chunk(2)
        return -functional.logsigmoid(chosen - rejected).mean()


def _head_scores(head: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return head(**{k: v for k, v in batch.items() if k != "labels"}).logits.squeeze(-1)


def _encode_pairs(tokenizer: Any, pairs: list[Pair], max_length: int) -> list[dict[str, list[int]]]:
    """All chosen, then all rejected; an encoder (its tokeniser has a classification token) reads two texts."""
    rows = [Row(p.prompt, p.chosen) for p in pairs] + [Row(p.prompt, p.rejected) for p in pairs]
    if tokenizer.cls_token_id is None:
        return encode(tokenizer, rows, max_length)
    texts = [r.prompt for r in rows], [r.response for r in rows]
    made = tokenizer(*texts, truncation=True, max_length=max_length, return_token_type_ids=True)
    return [
        {"input_ids": ids, "labels": ids, "types": types}
        for ids, types in zip(made["input_ids"], made["token_type_ids"], strict=True)
    ]


def _collate(encoded: list[dict[str, list[int]]], pad: int) -> dict[str, torch.Tensor]:
    batch = collate(encoded, pad)
    if "types" in encoded[0]:
        batch["token_type_ids"] = collate([{**e, "input_ids": e["types"]} for e in encoded], 0)["input_ids"]
    return batch


def _batches(encoded: list[dict[str, list[int]]], size: int = 32):
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]["input_ids"]))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _likelihoods(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """(rows,): mean log-likelihood of a response token."""
    logits, targets = response_logits(model, batch)
    losses = functional.cross_entropy(logits.float(), targets, reduction="none")
    counts = (batch["labels"][:, 1:] != IGNORED).sum(1).tolist()
    return torch.stack([-part.mean() for part in losses.split(counts)])


def _margins(
    score: Callable[[dict[str, torch.Tensor]], torch.Tensor], tokenizer: Any, max_length: int
) -> Callable[[list[Pair]], np.ndarray]:
    """A function from pairs to (pairs,): score of the chosen less score of the rejected."""

    @torch.inference_mode()
    def margins(pairs: list[Pair]) -> np.ndarray:
        encoded = _encode_pairs(tokenizer, pairs, max_length)
        scores = np.empty(len(encoded))
        for indices in _batches(encoded):
            batch = _collate([encoded[i] for i in indices], tokenizer.pad_token_id)
            scores[indices] = score(batch).float().numpy()
        return scores[: len(pairs)] - scores[len(pairs) :]

    return margins


def _joint_weights(margins: np.ndarray) -> np.ndarray:
    """Weights of a Bradley-Terry model on feature differences; features are scaled for the fit and scaled back."""
    scale = np.abs(margins).mean(0) + 1e-12
    x = np.concatenate([margins, -margins]) / scale
    y = np.repeat([1, 0], len(margins))
    return LogisticRegression(fit_intercept=False, C=10.0).fit(x, y).coef_[0] / scale


def _length_margins(pairs: list[Pair], length: Callable[[str], int]) -> np.ndarray:
    """What every reward model must beat: the longer response is the better one, by tokens or by words."""
    return np.array([length(p.chosen) - length(p.rejected) for p in pairs])


def _accuracy(margins: np.ndarray) -> float:
    """Share of pairs in which the chosen response has the higher score; a tie counts half."""
    return float(np.mean(margins > 0) + np.mean(margins == 0) / 2)
