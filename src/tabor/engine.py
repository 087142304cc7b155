"""The network as the search runs it: fewer operations, the device's best number type, no more memory than allowed.

Nothing here decides what a trigger does: that is measured on the network as it came.
"""

from __future__ import annotations

import copy
import functools
import sys
import time
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.checkpoint import checkpoint
from torch.utils.hooks import RemovableHandle

from tabor.allocator import give_back_freed

FOLDING_ERROR = 1e-3
"""Largest relative difference of the logits by which a folded network may differ: rounding makes 1e-6."""

NORMALISATIONS = ("BatchNorm2d", "BatchNormAct2d")
"""Classes by name: the second is timm's, which takes a second to import and adds a dropout and an activation."""

WORTH_ROUNDING = 1.2
"""How many times as fast bfloat16 must be: 2.1 to 4.4 on AMD's AVX512-bf16 cores, 0.5 on Intel's without AMX."""

PRODUCT_SIZE = 512
PRODUCTS = 6
"""Of square matrices that many numbers wide, so many are multiplied in each type: 20 to 50 ms in all."""

CONTAINER = Path("/sys/fs/cgroup")

WORKSPACE = 2.0
"""Memory of a step as a multiple of what it keeps for the way back: gradients, and the operations' own buffers."""

SWIFT = 2**29
"""Bytes up to which a pass on a CPU keeps what it can: more leaves the caches, and the kernel hands out the memory, and
zeroes it, anew each time.  Of 224×224 up to four times as many images a second go through so."""

FEWEST = 16
"""Images that such a pass has all the same, as a class has 11 in a step: in parts it would run the way there twice."""

MOST_COUNTED = 1024
"""Images up to which it is tried whether more of them keep more memory."""


def best_dtype(device: torch.device) -> torch.dtype:
    """Returns bfloat16 where the device multiplies it faster than float32, else float32."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # On CPUs without either, bfloat16 is emulated, at a tenth of the speed.
        built_in = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        fast = device.type == "cpu" and built_in and product_speed_up() >= WORTH_ROUNDING
    return torch.bfloat16 if fast else torch.float32


@functools.cache
def product_speed_up() -> float:
    """Returns how many times as fast this CPU multiplies matrices in bfloat16 as in float32; measured once a process.

    That it can is not enough: Intel's cores, where a virtual machine hides their AMX, are half as fast in bfloat16.
    """
    drawn = torch.rand(PRODUCT_SIZE, PRODUCT_SIZE, generator=torch.Generator().manual_seed(0))
    factors = [drawn.to(dtype) for dtype in (torch.bfloat16, torch.float32)]
    taken: list[list[float]] = [[], []]
    for _ in range(PRODUCTS):  # in turns, so that what else runs here slows both
        for factor, seconds in zip(factors, taken, strict=True):
            began = time.perf_counter()
            factor @ factor
            seconds.append(time.perf_counter() - began)
    return min(taken[1]) / min(taken[0])


def folded(network: nn.Module, images: Tensor) -> nn.Module:
    """Returns a copy in which each batch normalisation is part of the convolution before it.

    Which belongs to which is seen by running it: the convolution's answer is the normalisation's input.  No code is
    made of the network, as tracing would.  Where the answers differ from the network's own, in a network that uses one
    of them otherwise too, it is returned as it is.

    Args:
        network: in evaluation mode, its weights frozen.
        images: a few, shape (N, C, H, W).
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network
    try:
        smaller = copy.deepcopy(network)
        for convolution, normalisation in _pairs(smaller, images):
            _fold(smaller, convolution, normalisation)
        with torch.no_grad():
            own, new = network(images.clone()), smaller(images.clone())
    except Exception:  # noqa: BLE001 (a stranger's forward may raise anything)
        return network
    scale = float(own.abs().max())
    return smaller if float((new - own).abs().max()) <= FOLDING_ERROR * max(scale, 1.0) else network


class _Pairs:
    """Sees which convolution's answer goes into which normalisation while a network runs."""

    def __init__(self) -> None:
        self._answers: dict[int, tuple[str, Tensor]] = {}  # holds the tensors, so that no id is given twice
        self._met: list[tuple[str, str]] = []

    def watch(self, name: str, module: nn.Module) -> RemovableHandle | None:
        """Watches one module of the network; returns what ends that."""
        if type(module) is nn.Conv2d:
            return module.register_forward_hook(lambda _module, _inputs, output: self._answered(name, output))
        if type(module).__name__ in NORMALISATIONS:
            return module.register_forward_pre_hook(lambda _module, inputs: self._asked(name, inputs[0]))
        return None

    def _answered(self, name: str, output: Tensor) -> None:
        self._answers[id(output)] = (name, output)

    def _asked(self, name: str, images: Tensor) -> None:
        if id(images) in self._answers:
            self._met.append((self._answers[id(images)][0], name))

    @property
    def once(self) -> list[tuple[str, str]]:
        """The names of those pairs of which neither met any other, or twice."""
        names = [name for pair in self._met for name in pair]
        return [pair for pair in self._met if all(names.count(name) == 1 for name in pair)]


def _pairs(network: nn.Module, images: Tensor) -> list[tuple[str, str]]:
    """The names of convolutions and of the normalisations that take their answers."""
    pairs = _Pairs()
    hooks = [pairs.watch(name, module) for name, module in network.named_modules()]
    with torch.no_grad():
        network(images.clone())
    for hook in filter(None, hooks):
        hook.remove()
    return pairs.once


def _fold(network: nn.Module, convolution: str, normalisation: str) -> None:
    conv, norm = network.get_submodule(convolution), network.get_submodule(normalisation)
    if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
        return
    more = [part for name, part in norm.named_children() if name in ("drop", "act")]
    rest = nn.Sequential(*more) if more else nn.Identity()
    network.set_submodule(convolution, fuse_conv_bn_eval(conv, norm))
    network.set_submodule(normalisation, rest)


def bytes_per_image(network: nn.Module, images: Tensor) -> int:
    """Returns how much memory a pass through the network keeps for the way back, for each image more.

    A network that takes a fixed number of images, and fills up what it is given, keeps as much for fewer.  So twice as
    many are counted until they keep more; where the fixed number is no power of two, that is up to twice too much.

    Args:
        network: its weights frozen.
        images: shape (1, C, H, W).
    """
    count = 2
    fewer, more = (_kept(network, images.repeat(n, 1, 1, 1)) for n in (count, 2 * count))
    while 0 < more <= fewer and count < MOST_COUNTED:
        count *= 2
        fewer, more = more, _kept(network, images.repeat(2 * count, 1, 1, 1))
    return max(1, (more - fewer) // count)


def _kept(network: nn.Module, images: Tensor) -> int:
    """The bytes of all tensors kept for the way back but the weights, which are there anyway."""
    kept: dict[int, int] = {}
    weights = {_memory(tensor)[0] for tensor in (*network.parameters(), *network.buffers())}

    def note(tensor: Tensor) -> Tensor:
        place, size = _memory(tensor)
        kept[place] = size
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor), torch.enable_grad():
        answer = network(
            images.clone().requires_grad_().clone()
        )  # held until the count is done, with all that it keeps
        del answer
    return sum(size for place, size in kept.items() if place not in weights)


def _memory(tensor: Tensor) -> tuple[int, int]:
    """Where a tensor's memory lies and its bytes; those of a sparse one, which has several, count for nothing."""
    try:
        storage = tensor.untyped_storage()
        return storage.data_ptr(), storage.nbytes()
    except NotImplementedError:  # what torch says of a sparse one
        return id(tensor), 0


def left_to_the_container(group: Path = CONTAINER) -> int:
    """Returns how many bytes Linux lets this container still take; no bound where it sets none.

    Args:
        group: folder of the control group, of version 2.
    """
    try:
        most, taken = int((group / "memory.max").read_text()), int((group / "memory.current").read_text())
        lines = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        cached = int(lines["active_file"]) + int(lines["inactive_file"])  # given back when it is needed
    except (OSError, ValueError, LookupError):  # there is none, or its limit is the word "max"
        return sys.maxsize
    return max(0, most - taken + cached)


def room(device: torch.device, limit: int | None) -> int:
    """Returns how many bytes the passes of a search may keep.

    Args:
        device: where it runs.
        limit: bytes that this process may take in all, or of the GPU's memory; None: a half of what is free.
    """
    if device.type == "cuda":
        taken = torch.cuda.memory_allocated(device)
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - taken
    else:
        give_back_freed()
        taken = psutil.Process().memory_info().rss
        free = min(psutil.virtual_memory().available, left_to_the_container())
    left = free / 2 if limit is None else limit - taken
    return max(0, int(left / WORKSPACE))


def images_at_once(device: torch.device, limit: int | None, each: int) -> int:
    """Returns how many images to send through a network in one pass, one at least.

    Args:
        device: where it runs.
        limit: of the memory, in bytes; see `room`.
        each: bytes that a pass keeps for each image; see `bytes_per_image`.
    """
    fitting = room(device, limit) // each
    swift = max(FEWEST, SWIFT // each) if device.type == "cpu" else fitting
    return max(1, min(fitting, swift))


def in_parts(network: nn.Module, images: Tensor, at_once: int) -> Tensor:
    """Returns the network's answers, of which the way back runs anew so many images at a time.

    What is kept are the images alone: it costs a third more time where there are more images than that.
    """
    if len(images) <= at_once:
        return network(images)
    anew = torch.is_grad_enabled() and images.requires_grad

    def answer(part: Tensor) -> Tensor:
        return network(part.clone())  # a network may work in place, and each part is needed again

    parts = images.split(at_once)
    return torch.cat([checkpoint(answer, part, use_reentrant=False) if anew else answer(part) for part in parts])
