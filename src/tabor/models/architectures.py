"""The paper's two small networks (Appendix C, Fig. 11 and 12), and a smaller one for the demonstration.

The figures give the layers' kinds (3×3 convolutions, 2×2 max-pooling) but not their widths.  Widths, and the
alternation of padded and unpadded convolutions, follow the network that Neural Cleanse trains on the same data.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from tabor.errors import ModelError


class ConvNet(nn.Module):
    """3×3 convolutions in stages, each stage but the last closed by a 2×2 max-pooling, then two dense layers.

    Args:
        stages: the output channels of the convolutions of each stage; in a stage the first convolution is
            padded and the others are not, unless `padded`.
        hidden: width of the first dense layer.
        num_classes: number of logits.
        channels: channels of the images.
        size: (H, W) of the images.
        padded: pad every convolution (needed where the images are small for the depth).
        pool_last: close the last stage with a max-pooling too.

    Raises:
        ModelError: the images are too small for the network.
    """

    def __init__(
        self,
        stages: tuple[tuple[int, ...], ...],
        hidden: int,
        num_classes: int,
        *,
        channels: int,
        size: tuple[int, int],
        padded: bool,
        pool_last: bool,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        height, width = size
        for stage_index, stage in enumerate(stages):
            for position, wide in enumerate(stage):
                padding = 1 if padded or position == 0 else 0
                layers += [nn.Conv2d(channels, wide, 3, padding=padding), nn.ReLU(inplace=True)]
                channels, height, width = wide, height - 2 + 2 * padding, width - 2 + 2 * padding
            if pool_last or stage_index < len(stages) - 1:
                layers.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
        if min(height, width) < 1:
            raise ModelError(f"images of {size[0]}×{size[1]} are too small for this network")
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(channels * height * width, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits (N, num_classes) of images (N, C, H, W) in [0, 1]."""
        logits: Tensor = self.head(self.features(images - 0.5))
        return logits


def gtsrb6(num_classes: int, channels: int, size: tuple[int, int]) -> ConvNet:
    """6 Conv + 2 MaxPooling (Fig. 11), 1.4 million weights at 32×32 and 43 classes."""
    stages = ((32, 32), (64, 64), (128, 128))
    return ConvNet(stages, 512, num_classes, channels=channels, size=size, padded=False, pool_last=False)


def gtsrb10(num_classes: int, channels: int, size: tuple[int, int]) -> ConvNet:
    """10 Conv + 5 MaxPooling (Fig. 12), all padded: five halvings take 32×32 to 1×1."""
    stages = ((32, 32), (64, 64), (128, 128), (128, 128), (256, 256))
    return ConvNet(stages, 512, num_classes, channels=channels, size=size, padded=True, pool_last=True)


def digits4(num_classes: int, channels: int, size: tuple[int, int]) -> ConvNet:
    """4 Conv + 2 MaxPooling, narrow: trains in seconds, for `tabor demo` and the tests."""
    stages = ((8, 16), (16, 32))
    return ConvNet(stages, 64, num_classes, channels=channels, size=size, padded=False, pool_last=True)


ARCHITECTURES: dict[str, Callable[[int, int, tuple[int, int]], nn.Module]] = {
    "gtsrb6": gtsrb6,
    "gtsrb10": gtsrb10,
    "digits4": digits4,
}
