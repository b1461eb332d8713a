"""A training that was interrupted goes on from here: weights, optimiser, random states and whatever the caller adds.

One safetensors file, replaced in one step, so that weights and position can never disagree.
"""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file


def save(path: Path, model: Any, optimizer: Any, position: dict[str, Any]) -> None:
    """Write the trained weights of `model`, the optimiser's state and `position` (JSON) to the file `path`.

    Raises OSError where the disk has no room for it.
    """
    tensors = {f"model.{name}": p.detach() for name, p in model.named_parameters() if p.requires_grad}
    for i, slot in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{key}": value.reshape(value.shape or (1,)) for key, value in slot.items()}
    # not in the file's header, which holds 100 MB at most
    text = torch.frombuffer(bytearray(json.dumps(position).encode()), dtype=torch.uint8)
    part = path.with_name(f"{path.name}.part")
    try:
        save_file({"position": text, **{key: value.contiguous() for key, value in tensors.items()}}, part)
    except SafetensorError as error:  # a full disk, mostly; the part would only keep it full
        part.unlink(missing_ok=True)
        raise OSError(f"no checkpoint could be written to {path}: {error}") from None
    part.replace(path)


def load(path: Path, model: Any) -> tuple[dict[str, Any], dict[int, dict[str, torch.Tensor]]] | None:
    """Put the weights at `path` into `model`; returns the position and the optimiser's slots, None without one.

    A file that is torn, or of another model, is set aside as `<path>.corrupt`.
    """
    if not path.exists():
        return None
    try:
        tensors = load_file(path)
        position = json.loads(tensors.pop("position").numpy().tobytes())
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        saved = {key.removeprefix("model."): tensors.pop(key) for key in list(tensors) if key.startswith("model.")}
        if {name: p.shape for name, p in trained.items()} != {name: value.shape for name, value in saved.items()}:
            raise ValueError("other weights")
    except (SafetensorError, ValueError, KeyError):
        path.replace(path.with_name(f"{path.name}.corrupt"))
        return None
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(saved[name])
    slots: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        _, index, name = key.split(".")
        slots.setdefault(int(index), {})[name] = value.reshape(()) if name == "step" else value
    return position, slots


def set_slots(optimizer: Any, slots: dict[int, dict[str, torch.Tensor]]) -> None:
    """Give the optimiser, whose parameters are those of the model that was saved, its state back."""
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})


def random_states() -> dict[str, Any]:
    """The global generators of Python, NumPy and torch (GPUs too), as JSON."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002 (libraries draw from it)
    return {
        "python": random.getstate(),
        "numpy": [name, np.asarray(keys).tolist(), *rest],
        "torch": torch.get_rng_state().tolist(),
        "cuda": [state.tolist() for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else [],
    }


def set_random_states(states: dict[str, Any]) -> None:
    """What `random_states` gave, before or after it was JSON."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(torch.tensor(states["torch"], dtype=torch.uint8))
    if states["cuda"]:
        torch.cuda.set_rng_state_all([torch.tensor(state, dtype=torch.uint8) for state in states["cuda"]])
