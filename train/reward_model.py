"""A reward model from preference pairs: a sequence-classification head, and a likelihood that carries knowledge.

A head trained with the Bradley-Terry loss finds faults of form and misses wrong facts; the likelihood of the response
under a model tuned on the preferred responses finds wrong facts, as far as the base model knows the right ones. Both
are joined by a logistic regression on pairs that neither was trained on.
"""

import functools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from . import UserError
from .batches import IGNORED, Row, response_logits
from .config import RewardModelConfig
from .finetune import finetune
from .models import load_causal_lm, load_tokenizer
from .pairs import Pair, longer
from .reward_head import batches, collate_rows, encode_pairs, head_scores, train_head


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
    head = train_head(backbone, tokenizer, train, config, seed)
    head.save_pretrained(out / "head")
    tokenizer.save_pretrained(out / "head")
    features = {"head": _margins(functools.partial(head_scores, head), tokenizer, config.max_length)}
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
        "balanced_accuracy": _balanced(on_test @ weights, longer(test)),
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


def _likelihoods(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """(rows,): mean log-likelihood of a response token."""
    batch = {k: v.to(model.device) for k, v in batch.items()}
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
        encoded = encode_pairs(tokenizer, pairs, max_length)
        scores = np.empty(len(encoded))
        for indices in batches(encoded):
            batch = collate_rows([encoded[i] for i in indices], tokenizer.pad_token_id)
            scores[indices] = score(batch).float().cpu().numpy()
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


def _balanced(margins: np.ndarray, longer: np.ndarray) -> float:
    """The mean of the accuracies where the chosen response has more words and where it has fewer."""
    parts = [margins[part] for part in (longer > 0, longer < 0) if part.any()]
    return float(np.mean([_accuracy(part) for part in parts])) if parts else _accuracy(margins)
