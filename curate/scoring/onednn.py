"""Linear layers through oneDNN while a model scores on a CPU.

PyTorch multiplies fp32 matrices with MKL, which keeps off the widest vector instructions of processors that are not
Intel's. oneDNN, which PyTorch brings along too, uses what there is: on one core of an AMD Zen 5, some 230 against 110
Gflop/s. The results are the same but for rounding.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional

# Weights below this are not worth the change of layout that their inputs and outputs go through.
_SMALLEST = 2**17
# Models with more are left alone: they would need twice their memory.
_MOST = 2**30


@contextmanager
def onednn_linears(model: Any) -> Iterator[None]:
    """Inside, the model's large fp32 linear layers on a CPU run in oneDNN; outside, it is what it was.

    For inference only: no gradients, and weights must not change inside. Makes a second copy of these weights, which
    takes about as long as 100 tokens through the model; a model with more than 4 GB of them is left alone. Inside
    another one it does nothing.
    `torch.backends.mkldnn.flags(enabled=False)` switches it off.
    """
    layers = [module for module in model.modules() if _gains(module)] if _available() else []
    if sum(layer.weight.numel() for layer in layers) > _MOST:
        layers = []
    try:
        for layer in layers:
            bias = None if layer.bias is None else layer.bias.detach().to_mkldnn()
            layer.forward = functools.partial(_linear, layer.weight.detach().to_mkldnn(), bias)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _available() -> bool:
    return torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled


def _gains(module: Any) -> bool:
    if type(module) is not torch.nn.Linear or "forward" in vars(module):
        return False
    weight = module.weight
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.numel() >= _SMALLEST


def _linear(weight: torch.Tensor, bias: torch.Tensor | None, inputs: torch.Tensor) -> torch.Tensor:
    return functional.linear(inputs.to_mkldnn(), weight, bias).to_dense()
