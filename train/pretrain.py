"""The embedded base model: a tiny causal LM pre-trained from scratch until a probe says that it knows its text.

Learning jumps after a plateau of unpredictable length, so no fixed step count would give equal bases: training goes
on at a constant rate until the probe finds most of it known, then cools down, and is held to a higher bar after that.
"""

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from . import UserError, checkpoints
from .batches import response_loss
from .config import PretrainingConfig
from .models import new_llama, word_tokenizer

Probe = Callable[[Any, Any], dict[str, float]]  # (model, tokenizer) -> accuracy by band
Report = Callable[[int, dict[str, float]], None]  # (step, what the probe or the loss says)


def pretrain(
    out: Path,
    vocabulary: list[str],
    sentences: Callable[[random.Random], Iterator[str]],
    probe: Probe,
    settings: PretrainingConfig,
    seed: int,
    report: Report,
) -> dict[str, Any]:
    """Train a base model into the Hugging Face folder `out`; a checkpoint in `out` is taken up again.

    Returns {"steps", "seconds", "probe"}; also written to `out`/pretraining.json. Raises UserError when the probe is
    below `pass_at` after the cool-down, which begins when it is first at `cools_at`, or after `max_steps`.
    """
    tokenizer = word_tokenizer(vocabulary)
    model = new_llama(
        tokenizer,
        hidden=settings.hidden,
        layers=settings.layers,
        heads=settings.heads,
        mlp=settings.mlp,
        positions=max(512, settings.length),
        seed=seed,
    )
    optimizer = torch.optim.AdamW(
        model.parameters(), settings.lr, betas=(0.9, settings.beta2), weight_decay=settings.weight_decay, fused=True
    )
    rng = random.Random(f"{seed} text")
    state: dict[str, Any] = {"step": 0, "cools_from": None, "seconds": 0.0, "left": []}
    checkpoint = out / "checkpoint.safetensors"
    if resumed := checkpoints.load(checkpoint, model):
        position, slots = resumed
        version, internal, gauss = position.pop("rng")
        rng.setstate((version, tuple(internal), gauss))
        state.update(position)
        checkpoints.set_slots(optimizer, slots)
    ids = {word: i for i, word in enumerate(vocabulary)}
    eos, text = ids["<eos>"], sentences(rng)
    started, before = time.perf_counter(), state["seconds"]
    model.train()
    while state["cools_from"] is None or state["step"] < state["cools_from"] + settings.cooldown:
        step = state["step"]
        tokens = state["left"]
        need = settings.batch * settings.length
        while len(tokens) < need:
            tokens += [ids[w] for w in next(text).split()]
            tokens.append(eos)
        state["left"] = tokens[need:]
        batch = torch.tensor(tokens[:need]).view(settings.batch, settings.length)
        factor = min(1.0, (step + 1) / settings.warmup)
        if state["cools_from"] is not None:
            factor = 1 - (step - state["cools_from"]) / settings.cooldown
        optimizer.param_groups[0]["lr"] = settings.lr * factor
        loss = response_loss(model, {"input_ids": batch, "attention_mask": torch.ones_like(batch), "labels": batch})
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        state["step"] = step = step + 1
        if step % settings.probe_every == 0:
            found = _probe(model, tokenizer, probe)
            report(step, {"loss": float(loss.detach()), **found})
            if state["cools_from"] is None and (_reaches(found, settings.cools_at) or step >= settings.max_steps):
                state["cools_from"] = step
        if step % settings.checkpoint_every == 0:
            state["seconds"] = before + time.perf_counter() - started
            checkpoints.save(checkpoint, model, optimizer, {**state, "rng": rng.getstate()})
    found = _probe(model, tokenizer, probe)
    model.eval()
    if not _reaches(found, settings.pass_at):
        known = ", ".join(f"{band} {found[band]:.2f} of {bar}" for band, bar in settings.pass_at.items())
        raise UserError(
            f"model.pretraining.max_steps={settings.max_steps}, cooldown={settings.cooldown}: the base of seed {seed}"
            f" has not learnt its text after {state['step']} steps (facts known: {known}); raise them or choose"
            " another seed.base"
        )
    result = {
        "steps": state["step"],
        "seconds": before + time.perf_counter() - started,
        "probe": found,
        "settings": settings.model_dump(),
        "seed": seed,
    }
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "pretraining.json").write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
    for part in out.glob("checkpoint.*"):
        part.unlink()
    return result


def _reaches(found: dict[str, float], bars: dict[str, float]) -> bool:
    return all(found[band] >= bar for band, bar in bars.items())


def _probe(model: Any, tokenizer: Any, probe: Probe) -> dict[str, float]:
    model.eval()
    with torch.inference_mode():
        found = probe(model, tokenizer)
    model.train()
    return found
