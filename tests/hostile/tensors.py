"""Checkpoints whose tensors are not what they say: views beyond their memory, odd layouts, types and devices."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from .makers import (
    LITTLE,
    Corpus,
    archive,
    call,
    checkpoint,
    named,
    number,
    saved,
    several,
    storage,
    table,
    tensor,
    text,
    weights,
)


def with_bias(value: bytes, *, size: int = 16) -> bytes:
    """A checkpoint of one tensor, written by hand."""
    return checkpoint(table({"head.5.bias": value}), s0=bytes(size))


def replaced(**changes: Tensor) -> dict[str, Any]:
    """The honest weights with some changed; an underscore stands for a dot."""
    return weights() | {name.replace("_", "."): value for name, value in changes.items()}


def wide_head(classes: int) -> bytes:
    """An honest file but for its last layer, of very many classes that all lie in one place."""
    return saved(replaced(head_5_weight=torch.zeros(1).expand(classes, 64), head_5_bias=torch.zeros(1).expand(classes)))


def holds_itself() -> bytes:
    """A state dict whose `state_dict` is itself."""
    loop: dict[str, Any] = {"epoch": 3}
    loop["state_dict"] = loop
    return saved(loop)


def overridden(method: str, by: str) -> bytes:
    """An ordered dict that answers for itself when it is asked for its items."""
    return checkpoint(call("collections.OrderedDict") + table({method: named(by)}) + b"b")


def dressed_up(method: str) -> bytes:
    """A tensor with an attribute in the place of one of its methods."""
    plain = tensor(storage(4), (4,), (1,))
    arguments = plain[plain.index(b"(") : -1]
    dressed = call(
        "torch._tensor._rebuild_from_type_v2",
        named("torch._utils._rebuild_tensor_v2"),
        named("torch.Tensor"),
        arguments,
        table({method: named("collections.OrderedDict")}),
    )
    return with_bias(dressed)


def quantised(stride: int) -> bytes:
    """A quantised tensor, whose strides PyTorch does not check."""
    rule = several(named("torch.per_tensor_affine"), b"G" + bytes(8), number(0))
    hooks = call("collections.OrderedDict")
    memory = storage(4, kind="torch.QInt8Storage")
    return with_bias(
        call(
            "torch._utils._rebuild_qtensor",
            memory,
            number(0),
            several(number(4)),
            several(number(stride)),
            rule,
            b"\x89",
            hooks,
        ),
        size=4,
    )


def meta() -> bytes:
    """A tensor with a shape and no memory."""
    dtype, size, stride = named("torch.float32"), several(number(2**31)), several(number(1))
    return with_bias(call("torch._utils._rebuild_meta_tensor_no_storage", dtype, size, stride, b"\x89"))


def nested() -> bytes:
    """A nested tensor."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return saved({"weight": torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])})


def swapped(order: bytes) -> bytes:
    """A checkpoint that says in which order its bytes are."""
    body = b"\x80\x02" + table({"head.5.bias": tensor(storage(3), (3,), (1,))}) + b"."
    return archive({"m/data.pkl": body, "m/version": b"3\n", "m/byteorder": order, "m/data/0": bytes(12)})


ODD = "sparse, quantised or complex"


TENSORS: Corpus = {
    "deep nesting": (lambda dead: checkpoint(b"]" * 100_000 + b"a" * 99_999), "tiny"),
    "holds itself": (lambda dead: holds_itself(), "holds no weights"),
    "no tensors": (lambda dead: saved({"epoch": 3}), "holds no weights"),
    "a list": (lambda dead: saved([torch.zeros(2)]), "holds no weights"),
    "a tensor": (lambda dead: saved(torch.zeros(2)), "holds no weights"),
    "numbers for names": (lambda dead: saved({1: torch.zeros(2)}), "holds no weights"),
    "a dict that answers for itself": (
        lambda dead: overridden("items", "builtins.bytearray"),
        "holds no weights|damaged",
    ),
    "a dict that calls what it is asked": (lambda dead: overridden("get", "torch.Size"), "holds no weights|damaged"),
    "a tensor that answers for itself": (lambda dead: dressed_up("is_complex"), "do not fit"),
    "a tensor that copies itself": (lambda dead: dressed_up("numel"), "do not fit"),
    "sparse weights": (lambda dead: saved({"weight": torch.eye(3).to_sparse()}), ODD),
    "sparse weights, by rows": (lambda dead: saved({"weight": torch.eye(3).to_sparse_csr()}), ODD),
    "complex weights": (lambda dead: saved({"weight": torch.ones(3, dtype=torch.cfloat)}), ODD),
    "quantised weights": (lambda dead: quantised(1), ODD),
    "quantised weights beyond their memory": (lambda dead: quantised(2**40), f"{ODD}|damaged"),
    "nested weights": (lambda dead: nested(), f"{ODD}|damaged|can run code"),
    "weights without memory": (lambda dead: saved({"weight": torch.ones(3, device="meta")}), "without their numbers"),
    "weights of 2**31 numbers without memory": (lambda dead: meta(), "without their numbers"),
    "weights of another network": (lambda dead: saved({"weight": torch.zeros(64)}), "do not fit"),
    "weights of a huge shape": (
        lambda dead: saved({"head.5.bias": torch.zeros(1).expand(2**40)}),
        r"repeat a smaller memory: head\.5\.bias",
    ),
    "a head of 2**31 classes": (lambda dead: wide_head(2**31), "repeat a smaller memory"),
    "a head of a million classes": (lambda dead: wide_head(10**6), "repeat a smaller memory"),
    "overlapping strides": (
        lambda dead: saved({"head.5.bias": torch.zeros(10**5 + 1).as_strided((10**5, 2), (1, 1))}),
        "repeat a smaller memory",
    ),
    "strides beyond the memory": (lambda dead: with_bias(tensor(storage(4), (4,), (2**40,))), "damaged"),
    "strides that wrap around": (lambda dead: with_bias(tensor(storage(4), (3,), (2**63 - 1,))), "damaged"),
    "negative strides": (lambda dead: with_bias(tensor(storage(4), (4,), (-1,))), "damaged"),
    "negative size": (lambda dead: with_bias(tensor(storage(4), (-4,), (1,))), "damaged"),
    "negative offset": (lambda dead: with_bias(tensor(storage(4), (4,), (1,), -2)), "damaged"),
    "offset beyond the memory": (lambda dead: with_bias(tensor(storage(4), (4,), (1,), 10**9)), "damaged"),
    "size beyond the memory": (lambda dead: with_bias(tensor(storage(4), (5,), (1,))), "damaged"),
    "size that wraps around": (lambda dead: with_bias(tensor(storage(4), (2**62, 4), (0, 0))), "damaged|repeat"),
    "memory larger than its record": (lambda dead: with_bias(tensor(storage(2**20), (2**20,), (1,))), "damaged"),
    "memory of a negative size": (lambda dead: with_bias(tensor(storage(-4), (4,), (1,))), "damaged"),
    "memory whose size wraps around": (lambda dead: with_bias(tensor(storage(2**62 + 4), (4,), (1,))), "damaged"),
    "memory that is not there": (lambda dead: with_bias(tensor(storage(4, key="1"), (4,), (1,))), "damaged"),
    "memory above its folder": (lambda dead: with_bias(tensor(storage(4, key="../data.pkl"), (4,), (1,))), "damaged"),
    "memory that is no storage": (lambda dead: with_bias(tensor(text("x"), (4,), (1,))), "damaged"),
    "memory of a tensor's class": (
        lambda dead: with_bias(tensor(storage(4, kind="collections.OrderedDict"), (4,), (1,))),
        "damaged",
    ),
    "memory made up": (
        lambda dead: checkpoint(table({"head.5.bias": call("torch.FloatTensor", number(2**44))})),
        "damaged|more memory",
    ),
    "a persistent number": (lambda dead: checkpoint(table({"x": number(3) + b"Q"})), "damaged"),
    "a persistent module": (
        lambda dead: checkpoint(several(text("module"), named("torch.Tensor"), text("/etc/passwd"), text("x")) + b"Q"),
        "damaged|can run code",
    ),
    "on a graphics card": (lambda dead: with_bias(tensor(storage(4, device="cuda:0"), (4,), (1,))), "do not fit"),
    "on a device that there is not": (
        lambda dead: with_bias(tensor(storage(4, device="toaster:7"), (4,), (1,))),
        "do not fit|damaged",
    ),
    "of a class of its own": (
        lambda dead: with_bias(
            call(
                "torch._utils._rebuild_wrapper_subclass",
                named("torch.Tensor"),
                named("torch.float32"),
                several(number(2**40)),
                several(number(1)),
                number(0),
                call("torch.serialization._get_layout", text("torch.strided")),
                call("torch.device", text("cpu")),
                b"\x89",
            )
        ),
        "damaged",
    ),
    "a parameter of a tensor of a parameter": (
        lambda dead: with_bias(
            call("torch._utils._rebuild_parameter", LITTLE, b"\x88", call("collections.OrderedDict"))
        ),
        "do not fit",
    ),
    "float8 of another shape": (
        lambda dead: saved(replaced(head_5_bias=torch.zeros(3, 4).to(torch.float8_e5m2))),
        "do not fit",
    ),
    "4-bit floats": (
        lambda dead: saved(replaced(head_5_bias=torch.zeros(3, dtype=torch.uint8).view(torch.float4_e2m1fn_x2))),
        "do not fit|damaged",
    ),
    "whole numbers": (lambda dead: saved({k: v.to(torch.int8) for k, v in weights().items()}), "12 of another type"),
    "yes and no": (lambda dead: saved({k: v.bool() for k, v in weights().items()}), "12 of another type"),
    "16-bit codes": (lambda dead: saved({k: v.to(torch.uint16) for k, v in weights().items()}), "12 of another type"),
    "NaN": (lambda dead: saved({k: v * torch.nan for k, v in weights().items()}), "not finite numbers"),
    "infinity": (lambda dead: saved({k: v / 0 for k, v in weights().items()}), "not finite numbers"),
    "one NaN": (lambda dead: saved(replaced(head_5_bias=torch.tensor([0.0, torch.nan, 0.0]))), "not finite numbers"),
    "an order of bytes that there is not": (lambda dead: swapped(b"\x1b[2J"), r"damaged .*endianness type: \\x1b\[2J"),
    "an order of bytes without end": (lambda dead: swapped(b"x" * 10**6), "damaged"),
}
