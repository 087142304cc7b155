"""Logits, log-probabilities and probabilities are told apart and made the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tabor.errors import ModelError
from tabor.models.outputs import Output, as_logits, recognise

SHAPE = (3, 5, 4)
ANSWERS: dict[Output, Callable[[Tensor], Tensor]] = {
    Output.LOGITS: lambda x: x,
    Output.LOG_PROBABILITIES: lambda x: x.log_softmax(1),
    Output.PROBABILITIES: lambda x: x.softmax(1),
}


class _Answering(nn.Module):
    """A linear classifier whose logits go through a function."""

    def __init__(self, answer: Callable[[Tensor], Tensor], gain: float = 1.0) -> None:
        super().__init__()
        weight = gain * torch.randn(7, 60, generator=torch.Generator().manual_seed(1))
        self.weight, self.answer = nn.Parameter(weight), answer

    def forward(self, images: Tensor) -> Tensor:
        return self.answer(images.flatten(1) @ self.weight.T)


@pytest.mark.parametrize("gain", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("output", Output)
def test_recognised_and_made_the_same(output: Output, gain: float) -> None:
    model = _Answering(ANSWERS[output], gain)
    assert recognise(model, SHAPE) is output
    images = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(2))
    answers = as_logits(model, output)(images)
    logits = _Answering(ANSWERS[Output.LOGITS], gain)(images)
    assert bool(torch.isfinite(answers).all())
    assert torch.allclose(answers.softmax(1), logits.softmax(1), atol=1e-6)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda x: x.abs(), id="never negative"),
        pytest.param(lambda x: -x.abs(), id="never positive"),
        pytest.param(lambda x: x.sigmoid(), id="one sigmoid a class"),
        pytest.param(lambda x: x.relu(), id="ReLU"),
        pytest.param(lambda x: x - x.mean(1, keepdim=True) + 1 / 7, id="sum to 1"),
        pytest.param(lambda x: x.softmax(1) / 2, id="sum to less than 1"),
        pytest.param(lambda x: x.softmax(1) * torch.tensor([[1.0], [2.0]]), id="one image of two"),
    ],
)
def test_what_only_looks_like_probabilities(answer: Callable[[Tensor], Tensor]) -> None:
    assert recognise(_Answering(answer), SHAPE) is Output.LOGITS


def test_probabilities_too_small_for_float32_have_finite_logarithms_and_no_others_are_cut_off() -> None:
    logarithm = as_logits(nn.Identity(), Output.PROBABILITIES)
    wanted = torch.tensor([[0.0, -46.0, -69.0]])
    torch.testing.assert_close(logarithm(torch.tensor([[1.0, 1e-20, 0.0]])), wanted, rtol=0.01, atol=0)
    assert bool(torch.isfinite(logarithm(torch.tensor([[1.0, 0.0]]).half())).all())


def test_probabilities_of_half_precision() -> None:
    assert recognise(_Answering(lambda x: x.softmax(1).half()), SHAPE) is Output.PROBABILITIES


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        pytest.param(lambda x: x[:, :, None], r"this model returned \(2, 7, 1\)", id="three dimensions"),
        pytest.param(lambda x: x[:1], r"this model returned \(1, 7\)", id="one answer for all"),
        pytest.param(lambda x: {"logits": x}, "this model returned dict", id="a mapping"),
        pytest.param(lambda x: x * torch.nan, "are not finite numbers", id="NaN"),
        pytest.param(lambda x: x / 0, "are not finite numbers", id="infinity"),
        pytest.param(lambda x: x.view(99), r"fails on images of 3×5×4 .*--size", id="an error"),
    ],
)
def test_what_is_no_classifier(answer: Callable[[Tensor], Tensor], told: str) -> None:
    with pytest.raises(ModelError, match=told):
        recognise(_Answering(answer), SHAPE)
