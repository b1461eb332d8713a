"""The head of a reward model: a sequence classifier with one output, taught by preference pairs (Bradley and Terry).

Two things that pairs teach and that are no quality can be kept out of it. Length: the margin of a pair is orthogonal
to how much longer the chosen response is, over the pairs that it was trained on. Padding: what changes a score when
something empty is added to a response is penalised. Both are done where the classifier is fitted in one pass: of a body
that is tuned too, at the end.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.linalg import null_space
from sklearn.linear_model import LogisticRegression
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, PrinterCallback, Trainer
from transformers.trainer_utils import set_seed

from . import UserError
from .batches import Row, collate, encode
from .config import RewardModelConfig
from .finetune import quiet_arguments
from .models import device
from .pairs import Pair, longer, padded

Encoded = dict[str, list[int]]


def train_head(backbone: str | Path, tokenizer: Any, pairs: list[Pair], config: RewardModelConfig, seed: int) -> Any:
    """The trained classifier. Raises UserError if the backbone cannot be loaded or has not the classifier needed."""
    set_seed(seed)
    try:
        head = AutoModelForSequenceClassification.from_pretrained(str(backbone), num_labels=1, dtype=torch.float32)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        mend = "give a folder or hub id"
        raise UserError(f"model.reward.backbone: {backbone} cannot be loaded ({reason}); {mend}") from error
    head.to(device()).config.pad_token_id = tokenizer.pad_token_id
    both = encode_pairs(tokenizer, pairs, config.max_length)
    # the response of each pair that is padded: the chosen one (row i of `both`) or the rejected one (row i + pairs)
    rng = np.random.default_rng([seed, 1])
    of = np.arange(len(pairs)) + len(pairs) * rng.integers(2, size=len(pairs))
    more: list[Encoded] = []
    if config.padding:
        responses = [p.chosen for p in pairs] + [p.rejected for p in pairs]
        filled = [Pair(p.prompt, padded(responses[row], rng), "") for p, row in zip(pairs, of, strict=True)]
        more = encode_pairs(tokenizer, filled, config.max_length)[: len(pairs)]
    if config.trained_layers != 0:
        _tune(head, tokenizer.pad_token_id, both, config, seed)
    if config.trained_layers == 0 or config.length_orthogonal or config.padding:
        length = longer(pairs) if config.length_orthogonal else None
        _fit_classifier(head.eval(), both, more, of, length, config.padding, tokenizer.pad_token_id)
    return head.eval()


def _tune(head: Any, pad: int, both: list[Encoded], config: RewardModelConfig, seed: int) -> None:
    """Gradient descent on the last layers and the classifier."""
    _freeze(head, config.trained_layers)
    for part in head.base_model.modules():  # two noisy readings of nearly the same text differ by their noise most
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    half = len(both) // 2
    examples = [{"chosen": c, "rejected": r} for c, r in zip(both[:half], both[half:], strict=True)]
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
                bf16=config.bf16,
            ),
            optimizers=(_optimizer(head, config), None),
            train_dataset=examples,
            data_collator=lambda batch: collate_rows(
                [e["chosen"] for e in batch] + [e["rejected"] for e in batch], pad
            ),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def _optimizer(head: Any, config: RewardModelConfig) -> torch.optim.Optimizer | None:
    """AdamW with a rate of its own for the classifier, which starts from nothing; None = the Trainer's, of one rate."""
    if config.head_lr is None:
        return None
    parts: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
    for name, weight in head.named_parameters():
        if weight.requires_grad:
            parts[name.startswith(("classifier.", "score."))].append(weight)
    return torch.optim.AdamW(
        [{"params": parts[True], "lr": config.head_lr}, {"params": parts[False], "lr": config.lr}], weight_decay=0.0
    )


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
def _fit_classifier(
    head: Any,
    both: list[Encoded],
    more: list[Encoded],
    of: np.ndarray,
    length: np.ndarray | None,
    penalty: float,
    pad: int,
) -> None:
    """The body as it is: one pass for the features, then a logistic regression for the classifier's weights.

    The Bradley-Terry model of `_PairwiseTrainer` with the body frozen, at the cost of a single forward pass. With
    `length` the weights are those of the best classifier whose margins have no covariance with it.
    """
    classifier = getattr(head, "classifier", None)
    if not isinstance(classifier, torch.nn.Linear):
        raise UserError(
            "model.reward.trained_layers=0, padding, length_orthogonal: this backbone has no linear classifier; "
            "give 1, more or null, and neither of the others"
        )
    encoded = both + more
    seen: list[torch.Tensor] = []
    hook = classifier.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    features = np.empty((len(encoded), classifier.in_features))
    for indices in batches(encoded):
        head_scores(head, collate_rows([encoded[i] for i in indices], pad))
        features[indices] = seen.pop().float().cpu().numpy()
    hook.remove()
    n = len(both) // 2
    margins = features[:n] - features[n : 2 * n]
    scale = margins.std(0) + 1e-9
    changes = (features[2 * n :] - features[of]) / scale if more else None
    weights = fit_margins(margins / scale, changes, penalty, length) / scale
    classifier.weight.copy_(torch.as_tensor(weights)[None])
    classifier.bias.zero_()


_PRIOR = 0.1  # variance of the normal prior on a weight


def fit_margins(
    margins: np.ndarray, changes: np.ndarray | None = None, penalty: float = 0.0, length: np.ndarray | None = None
) -> np.ndarray:
    """(features,) weights of a Bradley-Terry model: minimal -log sigmoid(margins @ w) + penalty * (changes @ w) ** 2.

    Args:
        margins: (pairs, features), chosen less rejected.
        changes: (rows, features) what should move no score; None for nothing.
        length: (pairs,) what `margins @ w` is to have no covariance with; None for nothing.
    """
    x, y = np.concatenate([margins, -margins]), np.repeat([1, 0], len(margins))
    if changes is None and length is None:
        return LogisticRegression(fit_intercept=False, C=_PRIOR, max_iter=2000).fit(x, y).coef_[0]
    allowed = np.eye(x.shape[1]) if length is None else null_space(length[None] @ margins)
    precision = np.eye(allowed.shape[1]) / _PRIOR
    if changes is not None:  # the penalty is quadratic like a prior, so it is one: the loss counts every pair twice
        moved = changes @ allowed
        precision += 4 * penalty * len(margins) / len(moved) * moved.T @ moved
    # in coordinates in which the prior has unit variance
    values, vectors = np.linalg.eigh(precision)
    allowed = allowed @ (vectors / np.sqrt(np.maximum(values, 1 / _PRIOR)))  # rounding takes the smallest below it
    return allowed @ LogisticRegression(fit_intercept=False, C=1.0, max_iter=2000).fit(x @ allowed, y).coef_[0]


class _PairwiseTrainer(Trainer):
    """The loss of Bradley and Terry: -log sigmoid(score of the chosen less score of the rejected)."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        chosen, rejected = head_scores(model, inputs).chunk(2)
        return -functional.logsigmoid(chosen - rejected).mean()


def head_scores(head: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """(rows,) scores of a batch of encoded rows."""
    return head(**{k: v.to(head.device) for k, v in batch.items() if k != "labels"}).logits.squeeze(-1)


def encode_pairs(tokenizer: Any, pairs: list[Pair], max_length: int) -> list[Encoded]:
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


def collate_rows(encoded: list[Encoded], pad: int) -> dict[str, torch.Tensor]:
    batch = collate(encoded, pad)
    if "types" in encoded[0]:
        batch["token_type_ids"] = collate([{**e, "input_ids": e["types"]} for e in encoded], 0)["input_ids"]
    return batch


def batches(encoded: list[Encoded], size: int = 32) -> Iterator[list[int]]:
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]["input_ids"]))
    for start in range(0, len(order), size):
        yield order[start : start + size]
