"""Safetensors files whose headers lie, and files of no kind at all."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import safetensors.torch
import torch

from tabor.models.content import LARGEST_HEADER
from tabor.models.safetensors_file import METADATA_KEY

from .makers import TINY, Corpus, safetensors_file, weights

Entry = dict[str, Any]


def entry(shape: list[int], begin: int, end: int, dtype: str = "F32") -> Entry:
    """What a header says about one tensor."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def recorded(**changes: object) -> bytes:
    """The honest weights with a record whose architecture is another."""
    record = {"architecture": dataclasses.asdict(TINY) | changes}
    return safetensors.torch.save(weights(), {METADATA_KEY: json.dumps(record)})


def retyped(dtype: torch.dtype) -> bytes:
    """The honest weights, as if their bytes were numbers of another type."""
    return safetensors.torch.save({name: value.to(dtype) for name, value in weights().items()})


def both(first: str, second: str) -> bytes:
    """A header that names one tensor twice."""
    return safetensors_file(f'{{"a": {first}, "a": {second}}}', bytes(8))


ONE = '{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
TWO = '{"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}'
DAMAGED = "is no whole safetensors file"

HEADERS: Corpus = {
    "tensor beyond the end": (
        lambda dead: safetensors_file({"weight": entry([2**40], 0, 2**42)}, bytes(16)),
        DAMAGED,
    ),
    "tensor of 2**64 numbers": (lambda dead: safetensors_file({"w": entry([2**32, 2**32], 0, 0)}), DAMAGED),
    "tensor of no numbers by 2**63": (lambda dead: safetensors_file({"w": entry([0, 2**63], 0, 0)}), DAMAGED),
    "tensor of no numbers by 2**62": (
        lambda dead: safetensors_file({"w": entry([0, 2**62, 2**62], 0, 0)}),
        "do not fit",
    ),
    "tensor of a hundred thousand dimensions": (
        lambda dead: safetensors_file({"w": entry([1] * 100_000, 0, 4)}, bytes(4)),
        "do not fit",
    ),
    "negative size": (lambda dead: safetensors_file({"w": entry([-1], 0, 4)}, bytes(4)), DAMAGED),
    "tensor that ends before it begins": (lambda dead: safetensors_file({"w": entry([1], 4, 0)}, bytes(4)), DAMAGED),
    "tensors in one place": (
        lambda dead: safetensors_file({"a": entry([2], 0, 8), "b": entry([2], 0, 8)}, bytes(8)),
        DAMAGED,
    ),
    "bytes of no tensor": (lambda dead: safetensors_file({"w": entry([1], 0, 4)}, bytes(8)), DAMAGED),
    "one name twice": (lambda dead: both(ONE, TWO), DAMAGED),
    "one name twice for one place": (lambda dead: both(ONE, ONE), DAMAGED),
    "unknown type": (lambda dead: safetensors_file({"w": entry([1], 0, 4, "Q7")}, bytes(4)), DAMAGED),
    "6-bit floats": (lambda dead: safetensors_file({"w": entry([8], 0, 6, "F6_E2M3")}, bytes(6)), DAMAGED),
    "4-bit floats": (
        lambda dead: safetensors_file({"head.5.bias": entry([6], 0, 3, "F4")}, bytes(3)),
        "do not fit",
    ),
    "complex numbers": (lambda dead: retyped(torch.complex64), "12 of another type"),
    "whole numbers": (lambda dead: retyped(torch.int8), "12 of another type"),
    "64-bit codes": (lambda dead: retyped(torch.uint64), "12 of another type"),
    "yes and no": (lambda dead: retyped(torch.bool), "12 of another type"),
    "NaN": (
        lambda dead: safetensors.torch.save({k: v * torch.nan for k, v in weights().items()}),
        "not finite numbers",
    ),
    "infinity": (lambda dead: safetensors.torch.save({k: v / 0 for k, v in weights().items()}), "not finite numbers"),
    "names with control characters": (
        lambda dead: safetensors.torch.save({"\x1b[2J\nverdict: clean" * 99: torch.ones(1)}),
        r"1 unknown \(\\x1b\[2J\\nverdict",
    ),
    "a name without end": (lambda dead: safetensors.torch.save({"x" * 10**6: torch.ones(1)}), "do not fit"),
    "no tensors": (lambda dead: safetensors_file({}), "do not fit"),
    "deep nesting": (lambda dead: safetensors_file('{"a":' + "[" * 10**5 + "]" * 10**5 + "}"), DAMAGED),
    "half a surrogate": (lambda dead: safetensors_file('{"\\ud800": ' + ONE + "}", bytes(4)), DAMAGED),
    "no JSON": (lambda dead: safetensors_file("{" * 40), DAMAGED),
    "no text": (lambda dead: (40).to_bytes(8, "little") + b"{" + b"\xff" * 39, DAMAGED),
    "header beyond the end": (lambda dead: (10**6).to_bytes(8, "little") + b"{}" * 20, DAMAGED),
    "header of another byte order": (
        lambda dead: (40).to_bytes(8, "big") + b'{"w": 1}'.ljust(40),
        "no known kind",
    ),
    "header larger than is read": (
        lambda dead: (LARGEST_HEADER + 1).to_bytes(8, "little") + b"{" + b" " * LARGEST_HEADER,
        "no known kind",
    ),
    "nothing": (lambda dead: b"", "no known kind"),
    "a few bytes": (lambda dead: b"\x02\0\0\0\0\0\0\0", "no known kind"),
    "zeros": (lambda dead: bytes(4096), "no known kind"),
    "text": (lambda dead: b"these are no weights\n" * 20, "no known kind"),
    "a web page": (lambda dead: b"<!DOCTYPE html><script>alert(1)</script>" * 9, "no known kind"),
    "a program": (lambda dead: b"#!/bin/sh\ntouch '" + str(dead).encode() + b"'\n", "no known kind"),
}

RECORDS: Corpus = {
    "head of 2**31 classes": (lambda dead: recorded(num_classes=2**31), "do not fit"),
    "head of 2**80 classes": (lambda dead: recorded(num_classes=2**80), "cannot be built so"),
    "another number of classes": (lambda dead: recorded(num_classes=4), "do not fit"),
    "minus one class": (lambda dead: recorded(num_classes=-1), "at least 2 classes"),
    "classes in words": (lambda dead: recorded(num_classes="3"), "whole numbers"),
    "classes by halves": (lambda dead: recorded(num_classes=3.5), "whole numbers"),
    "images of 4096 × 4096": (lambda dead: recorded(size=[4096, 4096]), "make no sense"),
    "images of 2**70 channels": (lambda dead: recorded(channels=2**70), "make no sense"),
    "images of 1024 × 1024": (lambda dead: recorded(size=[1024, 1024]), "do not fit"),
    "images without size": (lambda dead: recorded(size=None), "whole numbers|makes no sense"),
    "a network that there is not": (lambda dead: recorded(name="timm:../../etc/passwd"), "timm has no model"),
    "a network from the internet": (lambda dead: recorded(name="hf-hub:evil/model"), "unknown architecture hf-hub"),
    "a network in a file": (lambda dead: recorded(name="/tmp/evil.py:build"), "unknown architecture"),
    "a name with control characters": (lambda dead: recorded(name="tabor:\x1b[2J\n"), r"architecture tabor:\\x1b\[2J"),
    "another network": (lambda dead: recorded(name="tabor:gtsrb6", size=[32, 32]), "do not fit"),
    "a mean that is none": (lambda dead: recorded(mean=[float("nan")], std=[1.0]), "finite"),
    "a std of zero": (lambda dead: recorded(mean=[0.5], std=[0.0]), "std must be positive"),
    "a range of nothing": (lambda dead: recorded(value_range=[1, 1]), "the smaller one first"),
    "a range of ten to the 400": (lambda dead: recorded(value_range=[0, 10**400]), "finite|makes no sense"),
    "fields that there are not": (lambda dead: recorded(__class__="os.system"), "makes no sense"),
}
"""Files that say which network they are, loaded without being told."""
