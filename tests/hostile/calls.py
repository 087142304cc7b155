"""Checkpoints whose pickles are well-formed calls of PyTorch's own functions, with arguments that do not fit together.

Each function's arguments are drawn by their roles, so that what is tried lies behind the checks of arity and type.
"""

from __future__ import annotations

from pathlib import Path

from hypothesis import strategies as st

from .makers import LITTLE, call, checkpoint, named, number, numbers, several, storage, table, tensor, text

Parts = st.SearchStrategy[bytes]

LENGTHS = [-1, 0, 1, 2, 3, 4, 5, 2**20, 2**31, 2**62, 2**63 - 1]
DTYPES = [
    "float32",
    "float16",
    "float64",
    "int64",
    "int8",
    "uint8",
    "bool",
    "complex64",
    "quint8",
    "qint8",
    "float8_e5m2",
]
LAYOUTS = ["strided", "sparse_coo", "sparse_csr", "sparse_bsr", "_mkldnn"]
STORAGES = {"Float": 4, "Long": 2, "QInt8": 16, "Byte": 16, "Bool": 16, "ComplexFloat": 2}
"""And how many numbers lie in 16 bytes, which is what all records have."""

wholes: Parts = st.sampled_from(LENGTHS).map(number)
sizes: Parts = st.lists(st.sampled_from(LENGTHS), max_size=3).map(lambda drawn: numbers(tuple(drawn)))
booleans: Parts = st.sampled_from([b"\x88", b"\x89"])
hooks: Parts = st.just(call("collections.OrderedDict")) | st.just(b"N")
dtypes: Parts = st.sampled_from([named(f"torch.{dtype}") for dtype in DTYPES])
layouts: Parts = st.sampled_from([call("torch.serialization._get_layout", text(f"torch.{name}")) for name in LAYOUTS])
devices: Parts = st.sampled_from([call("torch.device", text(name)) for name in ("cpu", "meta", "cuda:0", "mps")])
memories: Parts = st.sampled_from([storage(count, kind=f"torch.{kind}Storage") for kind, count in STORAGES.items()])
affine = several(named("torch.per_tensor_affine"), b"G" + bytes(8), number(0))
channels = several(named("torch.per_channel_affine"), LITTLE, LITTLE, number(2**31))
quantisers: Parts = st.sampled_from([affine, channels])
places: Parts = st.just(tensor(storage(2, kind="torch.LongStorage"), (1, 2), (2, 1)))
classes: Parts = st.sampled_from([named("torch.Tensor"), named("torch.nn.parameter.Parameter")])
states: Parts = st.sampled_from(
    [
        table({name: value})
        for name in ("is_complex", "data", "shape", "_backward_hooks", "requires_grad", "grad", "__class__")
        for value in (named("torch.Size"), LITTLE, b"\x88")
    ]
)


def row(*roles: Parts) -> Parts:
    """A tuple of one of each."""
    return st.tuples(*roles).map(lambda drawn: several(*drawn))


def made(function: str, *roles: Parts) -> Parts:
    """What a function returns."""
    return st.tuples(*roles).map(lambda drawn: call(function, *drawn))


UTILS = "torch._utils._rebuild_"
plain = made(f"{UTILS}tensor_v2", memories, wholes, sizes, sizes, booleans, hooks) | st.just(LITTLE)
fitting = st.tuples(sizes, sizes).map(lambda drawn: several(storage(4), number(0), *drawn, b"\x89", b"N"))


def deeper(inner: Parts) -> Parts:
    """What is made of tensors."""
    compressed = row(plain, plain, inner, sizes)
    sparse = made(f"{UTILS}sparse_tensor", layouts, row(places | inner, inner, sizes, booleans) | compressed)
    nested = made(f"{UTILS}nested_tensor", inner, places | inner, places | inner, places | inner)
    parameter = made(f"{UTILS}parameter", inner, booleans, hooks)
    with_state = made(f"{UTILS}parameter_with_state", inner, booleans, hooks, states)
    moved = made(f"{UTILS}device_tensor_from_cpu_tensor", inner, dtypes, devices, booleans)
    typed = made("torch._tensor._rebuild_from_type_v2", st.just(named(f"{UTILS}tensor_v2")), classes, fitting, states)
    set_again = st.tuples(inner, row(memories, wholes, sizes, sizes) | states).map(lambda two: two[0] + two[1] + b"b")
    legacy = made("torch.FloatTensor", wholes | sizes | inner) | made("torch.sparse.FloatTensor", places, inner, sizes)
    return sparse | nested | parameter | with_state | moved | typed | set_again | legacy


tensors: Parts = st.recursive(
    plain
    | made(f"{UTILS}tensor", memories, wholes, sizes, sizes)
    | made(f"{UTILS}tensor_v3", memories, wholes, sizes, sizes, booleans, hooks, dtypes)
    | made(f"{UTILS}qtensor", memories, wholes, sizes, sizes, quantisers, booleans, hooks)
    | made(f"{UTILS}meta_tensor_no_storage", dtypes, sizes, sizes, booleans)
    | made(f"{UTILS}wrapper_subclass", classes, dtypes, sizes, sizes, wholes, layouts, devices, booleans),
    deeper,
    max_leaves=4,
)


def calls(_: Path) -> Parts:
    """A checkpoint with one tensor that was made so."""
    return tensors.map(lambda value: checkpoint(table({"head.5.bias": value}), s0=bytes(16)))
