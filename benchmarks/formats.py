"""Writes one model in every format that its network can be written in, loads and scans each, and compares.

The scan is that for small masks alone, whose anomaly indices are compared; patches would take most of the time.

Prints Markdown; `--json` writes the same figures.  Loading includes the rehearsal in a process of its own.

    python benchmarks/formats.py infected.safetensors --data DATA --work DIR --classes 16
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import tabor
from tabor import load_images, load_model
from tabor.methods.tabor import Tabor
from tabor.models import LoadedModel
from tabor.models.pixels import prepared


def arguments() -> argparse.Namespace:
    """Returns the parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a file that `tabor infect` wrote")
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for the files")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--classes", type=int, help="scan only so many, the planted ones among them; default: all")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def as_checkpoint(model: LoadedModel, path: Path) -> None:
    """Writes what a training script does that ran on several devices."""
    weights = {f"module.{name}": value for name, value in model.network.state_dict().items()}
    torch.save({"epoch": 7, "state_dict": weights}, path)


def as_exported(model: LoadedModel, path: Path) -> None:
    """Writes a program of torch.export for batches of any size, its preprocessing inside."""
    whole, images = _inside(model)
    batch = torch.export.Dim("batch", min=1, max=4096)
    torch.export.save(torch.export.export(whole, (images,), dynamic_shapes=({0: batch},)), path)


def as_onnx(model: LoadedModel, path: Path) -> None:
    """Writes an ONNX model for batches of any size, its preprocessing inside."""
    whole, images = _inside(model)
    torch.onnx.export(whole, (images,), path, dynamo=True, dynamic_shapes=({0: "batch"},), external_data=False)


def as_folder(model: LoadedModel, path: Path) -> None:
    """Writes a Hugging Face folder as timm does."""
    import timm

    shape = model.architecture
    zeros, ones = (0.0,) * shape.channels, (1.0,) * shape.channels
    used = {"input_size": shape.image_shape, "mean": shape.mean or zeros, "std": shape.std or ones}
    timm.models.save_for_hf(model.network, str(path), safe_serialization=True, data_config=used)


def _inside(model: LoadedModel) -> tuple[torch.nn.Module, Tensor]:
    return prepared(model.network, model.architecture).eval(), torch.rand(2, *model.architecture.image_shape)


def written(model: LoadedModel, source: Path, work: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Returns the files by format, and how each is loaded."""
    shape = model.architecture
    said = {"arch": shape.name, "channels": shape.channels, "size": shape.size, "mean": shape.mean, "std": shape.std}
    makers: dict[str, tuple[Callable[[LoadedModel, Path], None], str, dict[str, Any]]] = {
        "checkpoint": (as_checkpoint, "model.pth", said),
        "torch.export": (as_exported, "model.pt2", {}),
        "ONNX": (as_onnx, "model.onnx", {}),
    }
    if shape.name.startswith("timm:"):
        makers["Hugging Face folder"] = (as_folder, "folder", {})
    work.mkdir(parents=True, exist_ok=True)
    files: dict[str, tuple[Path, dict[str, Any]]] = {"safetensors": (source, {})}
    for name, (make, file, how) in makers.items():
        make(model, work / file)
        files[name] = work / file, how
    return files


def main() -> int:
    """Runs the benchmark; returns the exit code: 1 where the targets differ."""
    args = arguments()
    original = load_model(args.model)
    images = load_images(args.data, size=original.architecture.size, limit=args.images, seed=args.seed)
    planted = [entry["target"] for entry in original.record.get("backdoors", [])]
    others = [k for k in range(original.architecture.num_classes) if k not in planted]
    classes = None if args.classes is None else sorted(planted + others[: max(0, args.classes - len(planted))])
    with torch.no_grad():
        wanted = original(images.images)
    rows = []
    for name, (path, how) in written(original, args.model, args.work).items():
        began = time.monotonic()
        model = load_model(path, **how)
        seconds = time.monotonic() - began
        with torch.no_grad():
            apart = float((model(images.images) - wanted).abs().max() / wanted.abs().max())
        method = Tabor(restoring=None)
        result = tabor.scan(
            model, images, preset=args.preset, method=method, classes=classes, seed=args.seed, device="cpu"
        )
        indices = {f.index: f.anomaly_index for f in result.classes}
        row = {"format": name, "load_seconds": seconds, "logits_apart": apart, "targets": list(result.targets)}
        rows.append(row | {"verdict": str(result.verdict), "indices": indices})
        print(
            f"{name}: loaded in {seconds:.1f} s, {result.verdict} {list(result.targets)}", file=sys.stderr, flush=True
        )
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps({"model": args.model.name, "rows": rows}, indent=1) + "\n")
    return int(any(row["targets"] != rows[0]["targets"] for row in rows))


def table(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as a Markdown table; indices are compared where the first file's is 1 or more."""
    lines = [
        "| format | load, s | logits apart, share of the largest | verdict | targets | largest anomaly index | "
        "indices apart at most |",
        "|" + " --- |" * 7,
    ]
    first = rows[0]["indices"]
    for row in rows:
        known = [k for k, v in first.items() if v is not None and v >= 1 and row["indices"][k] is not None]
        apart = max((abs(row["indices"][k] - first[k]) / first[k] for k in known), default=0.0)
        largest = max((v for v in row["indices"].values() if v is not None), default=float("nan"))
        lines.append(
            f"| {row['format']} | {row['load_seconds']:.1f} | {row['logits_apart']:.1e} | {row['verdict']} | "
            f"{', '.join(map(str, row['targets'])) or '–'} | {largest:.3f} | {apart:.1%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
