"""Linear layers through oneDNN give what PyTorch's own give."""

import pytest
import torch
from torch import nn

from curate.scoring.onednn import onednn_linears

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")


class Own(nn.Linear):
    """A layer that somebody made their own."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(inputs) + 1


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(300, 500), nn.GELU(), nn.Linear(500, 300, bias=False), Own(300, 500), nn.Linear(500, 2)
    ).eval()


def replaced(model: nn.Module) -> list[int]:
    return [at for at, module in enumerate(model) if "forward" in vars(module)]  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(1, 300), (3, 7, 300), (2, 3, 4, 300)])
def test_the_results_are_the_same(model: nn.Module, shape: tuple[int, ...]) -> None:
    inputs = torch.randn(shape)
    with torch.inference_mode():
        plain = model(inputs)
        sliced = model(inputs[..., :1, :])  # not contiguous
        with onednn_linears(model):
            assert replaced(model) == [0, 2]  # neither a layer of another class nor a small one
            torch.testing.assert_close(model(inputs), plain, atol=1e-5, rtol=0)
            torch.testing.assert_close(model(inputs[..., :1, :]), sliced, atol=1e-5, rtol=0)
            with onednn_linears(model):  # once is enough
                torch.testing.assert_close(model(inputs), plain, atol=1e-5, rtol=0)
            assert replaced(model) == [0, 2]
        assert torch.equal(model(inputs), plain)


def test_a_model_that_would_need_much_more_memory_is_left_alone(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curate.scoring.onednn._MOST", 299_999)
    with onednn_linears(model):
        assert replaced(model) == []


def test_an_error_inside_leaves_the_model_as_it_was(model: nn.Module) -> None:
    with pytest.raises(RuntimeError), onednn_linears(model):
        raise RuntimeError
    assert replaced(model) == []


def test_training_goes_on_after_it(model: nn.Module) -> None:
    with torch.inference_mode(), onednn_linears(model):
        model(torch.randn(2, 300))
    model.train()(torch.randn(2, 300)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_other_types_and_a_switched_off_onednn_are_left_alone(model: nn.Module) -> None:
    with torch.backends.mkldnn.flags(enabled=False), onednn_linears(model):
        assert replaced(model) == []
    with onednn_linears(model.to(torch.bfloat16)):
        assert replaced(model) == []
