"""How fast the search is, beside the usual loop, the bare network and the machine: all in one run on one model.

The loop is written as public implementations are: one class after another, NCHW, batches of 32, three calls of the
network a step.  The engine takes as many steps with as many images, R3 and R4 on all of them.  The bare network is its
forward pass and the gradient with respect to the images, at the best of several batches, and nothing else.

A network of random weights answers at random to rounding too, so the engine keeps it in float32; give a trained one.

    python benchmarks/speed.py --model MODEL --data DATA --json speed.json
    python benchmarks/speed.py --arch timm:resnet18 --size 224 --num-classes 10 --classes 2 --steps 5
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tabor.access import Classifier
from tabor.allocator import keep_freed
from tabor.data import ImageSet, load_images
from tabor.findings import peak_memory
from tabor.methods.tabor import Tabor, r1, r2
from tabor.models import load_model
from tabor.models.build import Architecture, initialise
from tabor.models.pixels import prepared
from tabor.solver import SolverSettings, solve

BATCH = 32
BATCHES = (16, 32, 64, 128, 256)
IMAGES = 256
BARE_IMAGES = 512
LARGEST_PIXELS = 2**24
"""Numbers in a batch of images for the bare network: more only fills the memory."""

PEAK_SIZE = 1024
REPEATS = 3


def arguments() -> argparse.Namespace:
    """Returns the parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a trained model; without it, random weights and images")
    parser.add_argument("--data", help="its clean images")
    parser.add_argument("--arch", default="tabor:gtsrb6", help="of the random weights, as --size and --num-classes")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--num-classes", type=int, default=43)
    parser.add_argument("--classes", type=int, default=8, help="how many of them are searched")
    parser.add_argument("--steps", type=int, default=20, help="steps a class")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if (args.model is None) != (args.data is None):
        parser.error("--model and --data go together")
    return args


def subject(args: argparse.Namespace) -> tuple[nn.Module, ImageSet]:
    """Returns the network and the images."""
    if args.model is not None:
        return load_model(args.model), load_images(args.data, limit=IMAGES, seed=0)
    half = None if args.arch.startswith("tabor:") else (0.5, 0.5, 0.5)
    size = (args.size, args.size)
    architecture = Architecture(name=args.arch, num_classes=args.num_classes, size=size, mean=half, std=half)
    pixels = torch.rand(IMAGES, 3, *size, generator=torch.Generator().manual_seed(0))
    images = ImageSet(pixels, torch.arange(IMAGES) % args.num_classes, (), "noise")
    return prepared(initialise(architecture, seed=0), architecture), images


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Returns seconds on the clock, the device's own work included."""
    began = time.monotonic()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic() - began


def loop(network: nn.Module, images: ImageSet, target: int, steps: int, method: Tabor) -> Iterator[Tensor]:
    """Searches a class as public implementations do; yields the mask (1, H, W) after each step."""
    shape = images.images.shape[1:]
    raw_mask = torch.full((1, *shape[1:]), -2.0, device=images.images.device, requires_grad=True)
    raw_pattern = torch.zeros(shape, device=images.images.device, requires_grad=True)
    adam = torch.optim.Adam([raw_mask, raw_pattern], lr=0.1, betas=(0.5, 0.9))
    wanted = torch.full((BATCH,), target, device=images.images.device)
    for step in range(steps):
        index = torch.arange(step * BATCH, (step + 1) * BATCH) % len(images)
        x, y = images.images[index], images.labels[index]
        mask, pattern = raw_mask.sigmoid(), raw_pattern.sigmoid()
        loss = F.cross_entropy(network(x * (1 - mask) + pattern * mask), wanted)
        loss = loss + r1(mask[None], pattern[None], method.lambdas.mask_size, method.lambdas.pattern_size)[0]
        loss = (
            loss + r2(mask[None], pattern[None], method.lambdas.mask_smoothness, method.lambdas.pattern_smoothness)[0]
        )
        loss = loss + method.lambdas.crop * F.cross_entropy(network(x * (1 - mask)), y)
        alone = network((mask * pattern)[None])
        loss = loss + method.lambdas.explanation * F.cross_entropy(alone, wanted[:1])
        adam.zero_grad()
        loss.backward()
        adam.step()
        yield raw_mask.detach().sigmoid()


def loop_all(network: nn.Module, images: ImageSet, targets: list[int], steps: int, method: Tabor) -> None:
    """Searches one class after another."""
    for target in targets:
        for _ in loop(network, images, target, steps, method):
            pass


def engine(classifier: Classifier, images: ImageSet, targets: list[int], steps: int, method: Tabor) -> None:
    """Searches the same classes with as many steps and images as the loop."""
    settings = SolverSettings(steps=steps, batch_size=BATCH, smallest_steps=steps)
    solve(classifier, images, targets, method, settings, seed=0)


def bare(network: nn.Module, images: Tensor) -> float:
    """Returns images a second through the network and back, at the best batch."""
    best = 0.0
    for batch in (b for b in BATCHES if b == BATCHES[0] or b * images[0].numel() <= LARGEST_PIXELS):
        count = max(1, BARE_IMAGES // batch)
        x = images[:batch].repeat(-(-batch // len(images[:batch])), 1, 1, 1)[:batch]
        x = x.contiguous(memory_format=torch.channels_last).requires_grad_()

        def work(x: Tensor = x, count: int = count) -> None:
            for _ in range(count):
                torch.autograd.grad(network(x).sum(), x)

        torch.autograd.grad(network(x).sum(), x)
        best = max(best, batch * count / timed(work, images.device))
    return best


def peak(dtype: torch.dtype, device: torch.device) -> float:
    """Returns operations a second of a large matrix product."""
    a, b = (torch.rand(PEAK_SIZE, PEAK_SIZE, device=device).to(dtype) for _ in range(2))
    seconds = min(timed(lambda: a @ b, device) for _ in range(1 + REPEATS))
    return 2 * PEAK_SIZE**3 / seconds


def operations(network: nn.Module, image: Tensor) -> float:
    """Returns the multiplications and additions of one image, forward and to its gradient."""
    x = image[None].requires_grad_()
    with FlopCounterMode(display=False) as counter:
        network(x).sum().backward()
    return float(counter.get_total_flops())


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Returns all figures of one run."""
    device = torch.device(args.device)
    network, images = subject(args)
    model, images = network.eval().requires_grad_(False).to(device), images.to(device)
    targets = list(range(args.classes))
    method = Tabor(crop_share=1.0, mask_dropout=0.0, image_shift=0.0, restoring=None)
    passes = args.classes * args.steps * (2 * BATCH + 1)

    classifier = Classifier(model, device, images.shape)
    classifier.hasten(images.images)
    classifier.limit_memory(None)
    engine(classifier, images, targets[:1], 2, method)  # to warm up
    seconds = {"engine": timed(lambda: engine(classifier, images, targets, args.steps, method), device)}
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()
    loop_all(model, images, targets[:1], 2, method)
    seconds["loop"] = timed(lambda: loop_all(model, images, targets, args.steps, method), device)
    rates = {name: passes / taken for name, taken in seconds.items()}
    network = model.to(memory_format=torch.channels_last)
    flops = operations(network, images.images[0])
    rates["bare"] = bare(network.to(classifier.dtype), images.images.to(classifier.dtype))
    peaks = {str(dtype).partition(".")[2]: peak(dtype, device) for dtype in (torch.bfloat16, torch.float32)}
    return {
        **rates,
        "peak": peaks,
        "engine_over_loop": rates["engine"] / rates["loop"],
        "engine_over_bare": rates["engine"] / rates["bare"],
        "bare_over_peak": rates["bare"] * flops / max(peaks.values()),
        "peak_memory_bytes": memory,
        "engine_dtype": str(classifier.dtype).removeprefix("torch."),
    }


def main() -> int:
    """Runs the benchmark; returns the exit code."""
    keep_freed()  # as the command line does
    args = arguments()
    found = measure(args)
    for name in ("loop", "engine", "bare"):
        print(f"{name:>7}: {found[name]:8.0f} images a second, forward and back")
    print("   peak: " + ", ".join(f"{value / 1e9:.0f} GFLOP/s in {name}" for name, value in found["peak"].items()))
    print(f" engine and bare network in {found['engine_dtype']}")
    for name in ("engine_over_loop", "engine_over_bare", "bare_over_peak"):
        print(f"{name.replace('_', ' ')}: {found[name]:.2f}")
    print(f"peak memory: {found['peak_memory_bytes'] / 2**20:.0f} MiB")
    if args.json:
        device = torch.cuda.get_device_name() if args.device.startswith("cuda") else platform.machine()
        machine = {"device": device, "threads": torch.get_num_threads(), "cores": os.cpu_count()}
        settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
        about = {"machine": machine | {"torch": torch.__version__}, "settings": settings}
        args.json.write_text(json.dumps(found | about, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
