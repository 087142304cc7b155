"""Pickles that hang their reader, crash it, or fill the memory: what only a rehearsal can stand.

"hangs on a name" is a fault of PyTorch's own: it seeks words in the text of its refusal in quadratic time.
"""

from __future__ import annotations

from pathlib import Path

from .makers import Canary, Corpus, call, checkpoint, named, number, saved, table, text


def emptied(function: str, size: int, times: int = 1) -> bytes:
    """Calls that go through very many zeros, in a list."""
    return checkpoint(b"](" + times * call(function, call("builtins.bytearray", number(size))) + b"e")


def deep_key(depth: int) -> bytes:
    """A dict whose only key is a tuple in a tuple in a tuple, to be hashed without any check on its depth."""
    return checkpoint(b"})" + b"\x85" * depth + b"K\x01s")


def laughs(depth: int) -> bytes:
    """A dict whose only key is a pair of pairs of pairs …: 2**depth leaves in a few bytes, all to be hashed."""
    pairs = b"".join(b"q\x00h\x00\x86" for _ in range(depth))
    return checkpoint(b"}" + b"K\x01" + pairs + b"K\x01s")


def many_lists(count: int) -> bytes:
    """A list of very many lists."""
    return checkpoint(b"](" + b"]" * count + b"e")


def made_up(numel: int) -> bytes:
    """A tensor of no content, converted to another type."""
    there = call("torch.device", text("cpu"))
    tensor = call("torch.FloatTensor", number(numel))
    moved = call("torch._utils._rebuild_device_tensor_from_cpu_tensor", tensor, named("torch.float16"), there, b"\x88")
    return checkpoint(table({"head.5.bias": moved}))


def plain(dead: Path, depth: int = 100_000) -> bytes:
    """A pickle of a list in a list in a list."""
    return b"\x80\x04" + b"]" * depth + b"a" * (depth - 1) + b"."


LONG: Corpus = {
    "deep nesting": (plain, "pickle which can run code"),
    "a pickle that never ends": (lambda dead: b"\x80\x04" + b"]0" * 10**6, "pickle which can run code"),
    "a pickle of ten million marks": (lambda dead: b"\x80\x04" + b"(" * 10**7, "pickle which can run code"),
    "a canary behind very much": (
        lambda dead: saved({"x": [[] for _ in range(3 * 10**4)], "y": Canary(dead)}),
        "would call .*pathlib",
    ),
}

BOMBS: Corpus = {
    "hangs": (lambda dead: emptied("collections.Counter", 2**29, times=1000), "more than .* s"),
    "hangs on a key": (lambda dead: laughs(60), "more than .* s"),
    "hangs on a name": (lambda dead: checkpoint(call("os." + "x" * 10**6)), "more than .* s"),
    "crashes on a key": (lambda dead: deep_key(10**6), "its reader crashed"),
    "a billion entries": (lambda dead: emptied("torch.Size", 10**9), "memory"),
    "made-up memory, copied": (lambda dead: made_up(2**31), "memory"),
    "many lists": (lambda dead: many_lists(2 * 10**7), "memory|more than .* s"),
}
"""Never to be loaded without a rehearsal."""
