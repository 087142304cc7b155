"""Pictures of a trigger and the chart of the anomaly indices, as Pillow images and PNG bytes.

Pixel pictures are enlarged without smoothing, so that each pixel of a trigger stays a sharp square.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from tabor.data.images import ImageSet
from tabor.errors import DataError
from tabor.files import check_no_link, replacing
from tabor.result import FIGURES_FOLDER, ScanResult
from tabor.trigger import Trigger

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MIN_SIDE = 192  # screen pixels of the longer side; below this a 32-pixel trigger is too small to judge
CHECK = 8  # screen pixels a square of the checkerboard
GAP = 8  # screen pixels between two pictures shown side by side

# Okabe and Ito's colours differ in lightness too, so they stay apart for colour-blind eyes and in grey print.
FLAGGED = "#d55e00"
LIGHT = {"ink": "#1f2328", "faint": "#767c85", "plain": "#0072b2"}
DARK = {"ink": "#e6e8eb", "faint": "#8f96a0", "plain": "#56b4e9"}


def mask_picture(trigger: Trigger) -> Image.Image:
    """Draws the mask in grey: black where the image shows through, white where the trigger covers it."""
    return _enlarged(_grey(trigger.mask))


def pattern_picture(trigger: Trigger) -> Image.Image:
    """Draws the whole pattern, also where the mask hides it and its colours mean nothing."""
    return image_picture(trigger.pattern)


def trigger_picture(trigger: Trigger) -> Image.Image:
    """Draws the pattern weighted by the mask, on a checkerboard.

    The checkerboard stands for the image underneath: a black trigger would not be seen on plain black, nor a
    grey one on plain grey.
    """
    pattern, mask = pattern_picture(trigger), mask_picture(trigger)
    return Image.composite(pattern, _checkerboard(*pattern.size), mask)


def image_picture(image: Tensor) -> Image.Image:
    """Draws an image (C, H, W) in [0, 1]; with neither 1 nor 3 channels, the mean of them in grey."""
    return _enlarged(_colour(image))


def stamped_picture(image: Tensor, trigger: Trigger) -> Image.Image:
    """Draws a clean image (C, H, W) and, right of it, the same image with the trigger on it.

    Raises:
        DataError: the image and the trigger are not of one shape.
    """
    if image.shape != trigger.pattern.shape:
        raise DataError(
            f"the images have shape {tuple(image.shape)} and the trigger {tuple(trigger.pattern.shape)}; "
            f"give the images that the model was scanned with, at the same size"
        )
    before, after = image_picture(image), image_picture(trigger.to(image.device).stamp(image))
    both = Image.new("RGBA", (2 * before.width + GAP, before.height))  # the gap is transparent on any background
    both.paste(before, (0, 0))
    both.paste(after, (before.width + GAP, 0))
    return both


def example_image(images: ImageSet, target: int) -> Tensor:
    """Returns the first image that is not of the target class, (C, H, W); the very first where all are."""
    others = torch.nonzero(images.labels != target).flatten()
    return images.images[int(others[0]) if len(others) else 0]


def png(picture: Image.Image) -> bytes:
    """Encodes a picture as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def save_pictures(
    result: ScanResult, images: ImageSet | None, folder: str | Path, classes: Sequence[int]
) -> list[Path]:
    """Writes `figures/class-33-mask.png`, `-pattern`, `-trigger` and `-stamped` for each given class.

    Args:
        result: the scan.
        images: clean images to stamp; without them no stamped picture is written.
        folder: the run's folder.
        classes: class indices.

    Returns:
        The files written.

    Raises:
        TaborError: a class was not scanned, or the folder cannot be written.
    """
    written = []
    check_no_link(Path(folder) / FIGURES_FOLDER)
    for index in classes:
        trigger = result.trigger(index)
        pictures = {
            "mask": mask_picture(trigger),
            "pattern": pattern_picture(trigger),
            "trigger": trigger_picture(trigger),
        }
        if images is not None:
            pictures["stamped"] = stamped_picture(example_image(images, index), trigger)
        for name, picture in pictures.items():
            path = Path(folder) / FIGURES_FOLDER / f"class-{index:d}-{name}.png"
            with replacing(path) as temporary:
                temporary.write_bytes(png(picture))
            written.append(path)
    return written


def anomaly_chart(result: ScanResult, *, dark: bool = False) -> bytes:
    """Draws the anomaly index of each class against the threshold, as a PNG on a transparent background.

    Flagged classes differ in colour, in shape and by a label, so that no reader depends on the colour.
    """
    from matplotlib.figure import Figure  # not pyplot, whose figures are global state
    from matplotlib.ticker import MaxNLocator

    colours = DARK if dark else LIGHT
    figure = Figure(figsize=(6.4, 3), dpi=200, layout="constrained")
    axes = figure.add_subplot()
    _draw_classes(axes, result, colours)
    axes.axhline(result.threshold, color=colours["ink"], linewidth=1, linestyle="--")
    axes.annotate(
        f"threshold {result.threshold:.2f}", (1, result.threshold), xycoords=("axes fraction", "data"),
        xytext=(-3, 3), textcoords="offset points", ha="right", color=colours["ink"], fontsize=9,
    )  # fmt: skip
    axes.set_xlabel("class index", color=colours["ink"])
    axes.set_ylabel("anomaly index", color=colours["ink"])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.03, y=0.15)
    axes.tick_params(colors=colours["ink"])
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(colours["faint"])
    if result.classes:
        figure.legend(loc="outside upper left", ncols=3, frameon=False, labelcolor=colours["ink"], fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=True, metadata={"Software": None})
    return buffer.getvalue()


def _draw_classes(axes: Axes, result: ScanResult, colours: dict[str, str]) -> None:
    shown = [f for f in result.classes if f.anomaly_index is not None or f.flagged]  # a patch flags others as well
    measured = [(f.index, f.anomaly_index or 0.0, f.flagged) for f in shown]
    unmeasured = [f.index for f in result.classes if f.anomaly_index is None and not f.flagged]
    groups = (("not flagged", False, "o", colours["plain"], 5), ("flagged", True, "D", FLAGGED, 7))
    for label, flagged, marker, colour, size in groups:
        points = [(index, anomaly) for index, anomaly, is_flagged in measured if is_flagged == flagged]
        if points:
            x, y = zip(*points, strict=True)
            axes.vlines(x, 0, y, color=colour, linewidth=1)
            axes.plot(x, y, linestyle="", marker=marker, color=colour, markersize=size, label=label)
    for index, anomaly, flagged in measured:
        if flagged:
            axes.annotate(
                f"class {index:d}", (index, anomaly), xytext=(0, 7), textcoords="offset points",
                ha="center", color=colours["ink"], fontsize=9,
            )  # fmt: skip
    if unmeasured:
        zeros = [0.0] * len(unmeasured)
        axes.plot(unmeasured, zeros, linestyle="", marker="x", color=colours["faint"], label="no anomaly index")


def _bytes(values: Tensor) -> Tensor:
    return (values.detach().float().cpu() * 255).round().to(torch.uint8)


def _grey(values: Tensor) -> Image.Image:
    return Image.fromarray(_bytes(values)[0].numpy())


def _colour(values: Tensor) -> Image.Image:
    three = values if values.shape[0] == 3 else values.float().mean(0, keepdim=True).expand(3, -1, -1)
    return Image.fromarray(_bytes(three).permute(1, 2, 0).contiguous().numpy())


def _enlarged(picture: Image.Image) -> Image.Image:
    scale = math.ceil(MIN_SIDE / max(picture.size))
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def _checkerboard(width: int, height: int) -> Image.Image:
    squares = (torch.arange(height)[:, None] // CHECK + torch.arange(width) // CHECK) % 2
    return _colour(0.55 + 0.1 * squares[None].float())
