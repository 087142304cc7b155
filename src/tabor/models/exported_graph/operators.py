"""What a program of torch.export may do: a list of operators, each by the name that it has in the file.

A name from a file is looked up here and nowhere else.  What is not listed is refused: random numbers, anything that
takes memory addresses or strides, and what no image classifier needs.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch

from tabor.models.exported_graph import functions as ours
from tabor.models.exported_graph.functions import Function

LAYERS = """
    conv1d.default conv2d.default conv2d.padding conv3d.default convolution.default conv_transpose2d.input
    linear.default addmm.default mm.default bmm.default baddbmm.default matmul.default
    layer_norm.default group_norm.default instance_norm.default rms_norm.default
    max_pool1d.default max_pool2d.default max_pool2d_with_indices.default avg_pool1d.default avg_pool2d.default
    adaptive_avg_pool1d.default adaptive_avg_pool2d.default adaptive_max_pool2d.default
    embedding.default pixel_shuffle.default pixel_unshuffle.default
    channel_shuffle.default im2col.default col2im.default glu.default
    upsample_nearest2d.vec upsample_nearest2d.default upsample_bilinear2d.vec upsample_bilinear2d.default
    upsample_bicubic2d.vec upsample_bicubic2d.default grid_sampler.default grid_sampler_2d.default
    pad.default constant_pad_nd.default reflection_pad2d.default replication_pad2d.default
"""

ARITHMETIC = """
    relu.default relu6.default leaky_relu.default prelu.default elu.default selu.default celu.default gelu.default
    silu.default mish.default sigmoid.default tanh.default hardtanh.default hardswish.default hardsigmoid.default
    softplus.default log_sigmoid.default threshold.default softmax.int log_softmax.int
    add.Tensor add.Scalar sub.Tensor sub.Scalar rsub.Tensor rsub.Scalar mul.Tensor mul.Scalar div.Tensor div.Scalar
    div.Tensor_mode div.Scalar_mode floor_divide.default fmod.Scalar remainder.Scalar remainder.Tensor pow.Tensor_Scalar
    pow.Tensor_Tensor pow.Scalar addcmul.default addcdiv.default lerp.Scalar lerp.Tensor square.default
    neg.default abs.default exp.default expm1.default log.default log1p.default log2.default sqrt.default rsqrt.default
    reciprocal.default sin.default cos.default erf.default sign.default floor.default ceil.default round.default
    clamp.default clamp.Tensor clamp_min.default clamp_max.default minimum.default maximum.default
    mean.default mean.dim sum.default sum.dim_IntList var.correction var.dim var_mean.correction std.correction std.dim
    amax.default amin.default max.default max.dim max.other min.default min.dim min.other argmax.default
    prod.dim_int cumsum.default linalg_vector_norm.default norm.ScalarOpt_dim topk.default sort.default
    eq.Scalar eq.Tensor ne.Scalar ne.Tensor lt.Scalar lt.Tensor le.Scalar le.Tensor gt.Scalar gt.Tensor
    ge.Scalar ge.Tensor logical_not.default logical_and.default logical_or.default logical_xor.default
    bitwise_not.default bitwise_and.Tensor bitwise_or.Tensor isinf.default isnan.default any.dim
    where.self where.ScalarOther where.ScalarSelf where.Scalar masked_fill.Scalar masked_fill.Tensor
"""

ARRANGEMENT = """
    cat.default concat.default stack.default gather.default index_select.default index.Tensor
    clone.default copy.default fill.Scalar fill.Tensor zero.default repeat.default repeat_interleave.self_int
    slice_scatter.default select_scatter.default roll.default flip.default tril.default triu.default
    arange.default arange.start arange.start_step linspace.default full.default full_like.default zeros.default
    zeros_like.default ones.default ones_like.default new_zeros.default new_ones.default new_full.default
    scalar_tensor.default lift_fresh_copy.default
"""

CERTAIN_VIEWS = """
    permute.default transpose.int t.default unsqueeze.default squeeze.dim squeeze.dims squeeze.default
    expand.default expand_as.default slice.Tensor select.int narrow.default movedim.int movedim.intlist swapaxes.default
    swapdims.default
    split.Tensor split.sizes split_with_sizes.default chunk.default unbind.int unsafe_chunk.default
    unsafe_split.Tensor diagonal.default unfold.default alias.default
"""
"""Their result always lies in the memory of their first argument, so that both change when one is written into."""

POSSIBLE_VIEWS = """
    reshape.default view_as.default reshape_as.default flatten.using_ints unflatten.int contiguous.default ravel.default
    to.dtype to.device to.dtype_layout to.other type_as.default broadcast_tensors.default broadcast_to.default
    meshgrid.default meshgrid.indexing einsum.default
"""
"""Their result may lie in an argument's memory or in its own: that depends on how the argument is laid out."""

IN_PLACE = """
    relu relu6 leaky_relu elu selu celu silu gelu mish sigmoid tanh hardtanh hardswish hardsigmoid threshold
    add.Tensor add.Scalar sub.Tensor sub.Scalar mul.Tensor mul.Scalar div.Tensor div.Scalar div.Tensor_mode
    pow.Scalar addcmul neg abs exp log sqrt rsqrt reciprocal clamp clamp_min clamp_max
    masked_fill.Scalar masked_fill.Tensor fill.Scalar fill.Tensor zero copy
"""
"""Operators that write into their first argument, without the underscore that their names have."""

ASSERTIONS = """
    torch.ops.aten._assert_tensor_metadata.default torch.ops.aten._assert_async.msg torch.ops.aten._assert_async.default
    torch.ops.aten._assert_scalar.default torch.ops.aten.sym_constrain_range.default
    torch.ops.aten.sym_constrain_range_for_size.default
    _operator.eq _operator.ne _operator.lt _operator.le _operator.gt _operator.ge _operator.and_ _operator.or_
    torch.sym_not
"""
"""Left out: what they check may not hold on another device or in another precision.  With them go the comparisons of
sizes, which programs that were exported make for them alone: others could answer as the number of images bids."""


@dataclass(frozen=True)
class Operator:
    """One thing that a program may do.

    Attributes:
        call: does it, given the arguments by their names; never changes any of them.
        in_place: does it, writing into the first argument, where the program wants that.
        view: whether the result lies in an argument's memory; None: perhaps.
        positional: whether the arguments have no names.
    """

    call: Function
    in_place: Function | None = None
    view: bool | None = False
    positional: bool = False


OURS: Mapping[str, Operator] = {
    "view.default": Operator(ours.reshape, view=None),
    "_unsafe_view.default": Operator(ours.reshape, view=None),
    "detach.default": Operator(ours.same, view=True),
    "detach_.default": Operator(ours.same, view=True),
    "dropout.default": Operator(ours.dropout, view=True),
    "dropout_.default": Operator(ours.dropout_in_place, view=True),
    "feature_dropout.default": Operator(ours.dropout, view=True),
    "feature_dropout_.default": Operator(ours.dropout_in_place, view=True),
    "alpha_dropout.default": Operator(ours.dropout, view=True),
    "batch_norm.default": Operator(ours.batch_norm),
    "_native_batch_norm_legit_no_training.default": Operator(ours.native_batch_norm),
    "_native_batch_norm_legit.no_stats": Operator(ours.native_batch_norm_alone),
    "native_layer_norm.default": Operator(ours.native_layer_norm),
    "native_group_norm.default": Operator(ours.native_group_norm),
    "_softmax.default": Operator(ours.softmax),
    "_log_softmax.default": Operator(ours.log_softmax),
    "scaled_dot_product_attention.default": Operator(ours.attention),
    "_scaled_dot_product_flash_attention_for_cpu.default": Operator(ours.flash_attention),
    "_adaptive_avg_pool2d.default": Operator(ours.adaptive_average),
    "_upsample_bilinear2d_aa.vec": Operator(ours.upsample_smoothly("bilinear")),
    "_upsample_bicubic2d_aa.vec": Operator(ours.upsample_smoothly("bicubic")),
    "_to_copy.default": Operator(ours.to_copy),
}
"""Operators of PyTorch that stand for another one, which checks its arguments or is safe for a classifier."""


NUMBERS: Mapping[str, Function] = {
    "_operator.add": operator.add,
    "_operator.sub": operator.sub,
    "_operator.mul": operator.mul,
    "_operator.floordiv": operator.floordiv,
    "_operator.truediv": operator.truediv,
    "_operator.mod": operator.mod,
    "_operator.neg": operator.neg,
    "_operator.pos": operator.pos,
    "math.trunc": int,
    "torch.sym_int": int,
    "torch.sym_float": float,
    "torch.sym_max": max,
    "torch.sym_min": min,
}
"""What programs with a free batch size do with sizes.  No powers or shifts, which make huge numbers of small ones."""


@cache
def operators() -> Mapping[str, Operator]:
    """Returns the operators by the names that files call them; one that this PyTorch has not is missing."""
    known: dict[str, Operator] = {}
    for names, view in (
        (LAYERS + ARITHMETIC + ARRANGEMENT, False),
        (CERTAIN_VIEWS, True),
        (POSSIBLE_VIEWS, None),
    ):
        known |= {name: Operator(call, view=view) for name in names.split() if (call := aten(name))}
    for name in IN_PLACE.split():
        base, _, overload = name.partition(".")
        function, in_place = aten(f"{base}.{overload or 'default'}"), aten(f"{base}_.{overload or 'default'}")
        if function and in_place:
            known[f"{base}_.{overload or 'default'}"] = Operator(function, in_place=in_place)
    known |= {**OURS, "sym_size.int": Operator(ours.size)}
    named = {f"torch.ops.aten.{name}": operator for name, operator in known.items()}
    return named | {name: Operator(ours.of_numbers(call), positional=True) for name, call in NUMBERS.items()}


def aten(name: str) -> Function | None:
    """Returns PyTorch's operator of a name in the lists above, for example "conv2d.default", or None."""
    base, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, base, None), overload, None)


def is_assertion(name: str) -> bool:
    """Tells whether an operator of a file only checks something."""
    return name in ASSERTIONS.split()
