"""Functions that stand for operators of PyTorch: those that would be wrong for another batch, or in a scan, or that are
internal ones and check their arguments less than the public function does.

Their arguments have the operators' names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tabor.models.exported_graph.archive import ProgramError

Function = Callable[..., Any]

LARGEST_NUMBER = 2**63
"""Whole numbers of more than 64 bits measure nothing; multiplied on and on they would fill the memory."""


def reshape(self: Tensor, size: list[int]) -> Tensor:
    """For `view`, which fails on images whose channels lie last."""
    return self.reshape(size)


def same(self: Tensor) -> Tensor:
    """For `detach`, which changes no number, but would hide from a scan what lies before it."""
    return self


def dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """For every kind of dropout, which leaves the input alone but in training."""
    _refuse_training(train and p > 0)
    return input


def dropout_in_place(self: Tensor, p: float, train: bool) -> Tensor:
    """For those whose argument has another name."""
    return dropout(self, p, train)


def _refuse_training(training: bool) -> None:
    if training:
        raise ProgramError("was exported in training mode; call eval() on the model before exporting it")


def batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Tensor:
    """For the one that can be told to train.

    Without running statistics it normalises by its input's own, as weights are standardised in some networks; where
    that input is images, their answers depend on each other, which is found out when the program is first run.
    """
    _refuse_training(training and running_mean is not None)
    return torch.batch_norm(input, weight, bias, running_mean, running_var, training, momentum, eps, False)


def native_batch_norm(**given: Any) -> tuple[Tensor, None, None]:
    """For the one that export makes of it."""
    return batch_norm(**given, training=False), None, None


def native_batch_norm_alone(**given: Any) -> tuple[Tensor, None, None]:
    """For the one that export makes of it where there are no running statistics."""
    return batch_norm(**given, running_mean=None, running_var=None), None, None


def native_layer_norm(
    input: Tensor, normalized_shape: list[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, None, None]:
    """For the one that export makes of it."""
    return F.layer_norm(input, normalized_shape, weight, bias, eps), None, None


def native_group_norm(input: Tensor, group: int, eps: float, **given: Any) -> tuple[Tensor, None, None]:
    """For the one that is also told the number of images, which may be another one by now."""
    return F.group_norm(input, group, given["weight"], given["bias"], eps), None, None


def softmax(self: Tensor, dim: int, half_to_float: bool) -> Tensor:
    """For the internal one."""
    return self.softmax(dim)


def log_softmax(self: Tensor, dim: int, half_to_float: bool) -> Tensor:
    """For the internal one."""
    return self.log_softmax(dim)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """For the one that can be told to drop some of the attention."""
    _refuse_training(dropout_p > 0)
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa
    )


def flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Tensor, None]:
    """For the one that export makes of it on a processor, and that no other device has."""
    return attention(query, key, value, attn_mask, dropout_p, is_causal, scale), None


def to_copy(self: Tensor, dtype: torch.dtype | None = None, **placement: object) -> Tensor:
    """For the internal one; where it lies is where the images are."""
    return self.to(dtype=dtype or self.dtype, copy=True)


def adaptive_average(self: Tensor, output_size: list[int]) -> Tensor:
    """For the internal one."""
    return F.adaptive_avg_pool2d(self, output_size)  # type: ignore[arg-type]


def upsample_smoothly(mode: str) -> Function:
    """For the internal ones that interpolate with antialiasing; the mode is "bilinear" or "bicubic"."""

    def upsample(
        input: Tensor, output_size: list[int] | None, align_corners: bool, scale_factors: list[float] | None
    ) -> Tensor:
        return F.interpolate(input, output_size, scale_factors, mode, align_corners, antialias=True)

    return upsample


def size(self: Tensor, dim: int) -> int:
    """The length of a dimension."""
    return self.size(dim)


def of_numbers(function: Function) -> Function:
    """Returns a function that refuses everything but numbers, and results that are no sizes."""

    def checked(*operands: object) -> Any:
        if not all(type(operand) in (int, float, bool) for operand in operands):
            raise ProgramError("computes sizes from something else than numbers")
        result = function(*operands)
        if isinstance(result, int) and abs(result) >= LARGEST_NUMBER:
            raise ProgramError("computes a size of more than 64 bits")
        return result

    return checked
