"""How large the paper's experiments are run, and with what data and networks.  [§5.2.1]"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tabor.attacks.badnet import RETRAINING
from tabor.attacks.poison import BLACK, WHITE
from tabor.attacks.trojaning import TrojaningSettings
from tabor.demo import INFECTION, TRAINING
from tabor.training import TrainSettings
from tabor.zoo.build import POISON_FRACTION
from tabor.zoo.plans import SIZES, TARGET

IMAGENET_EDGE = 224
"""Of the paper's images, in pixels."""

IMAGENET_TRIGGER = 40
"""Edge of its triggers there, in pixels, where an experiment has but one."""

DIGITS = "digits"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One of the paper's data sets with its networks, or what stands for them.

    Attributes:
        name: "gtsrb", "imagenet" or "faces".
        data: the folder of the images below `--data`, or "digits".
        edge: to which images are resized, in pixels; None: their own.
        test: name of the split to measure on, of which the scans take some; the other is "train".
        arch: the network.
        deep: the deeper network of Figure 10; the same where the paper has none.
        base: a trained classifier to infect; None: one of `arch` or `deep` is trained.
        training, infection: of the base and of its victims.
        fraction: poisoned copies for each of a victim's triggers, as a share of the training images.
        trojaning: of Trojan Attack.
        size: edge of a trigger in pixels, where an experiment has but one.
        sizes: edges of Table 1's triggers: ours in pixels, by the printed one.
        colour: of Table 1's squares, one value in [0, 1] for all channels.
        target: the class that the triggers of Tables 1 and 4 to 6, and of Trojan Attack, send images to.
        images: how many a scan takes.
        stand_in: what stands for the paper's data and network, in words.
    """

    name: str
    data: str
    edge: int | None = None
    test: str = "test"
    arch: str
    deep: str
    base: Path | None = None
    training: TrainSettings
    infection: TrainSettings
    fraction: float = POISON_FRACTION
    trojaning: TrojaningSettings = field(default_factory=TrojaningSettings)
    size: int
    sizes: Mapping[int, int]
    colour: Sequence[float] = WHITE
    target: int
    images: int = 512
    stand_in: str


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large an experiment is run.

    Attributes:
        name: what `--scale` calls it.
        gtsrb, imagenet, faces: the setting for each of the paper's data sets.
        preset: of the scans.
        combinations: how many of the 64 settings of λ Figure 9 goes through at most, evenly chosen.
    """

    name: str
    gtsrb: Setting
    imagenet: Setting
    faces: Setting
    preset: str
    combinations: int

    @property
    def settings(self) -> tuple[Setting, ...]:
        """The three."""
        return self.gtsrb, self.imagenet, self.faces


def scaled(printed: int, edge: int) -> int:
    """Returns the edge of a trigger, printed for images of 224 pixels, for images of `edge` pixels; at least 1."""
    return max(1, round(printed * edge / IMAGENET_EDGE))


_DIGITS = Setting(
    name="gtsrb",
    data=DIGITS,
    arch="tabor:digits4",
    deep="tabor:digits4",
    training=TRAINING,
    infection=INFECTION,
    size=6,
    sizes={6: 6},
    target=7,
    images=360,
    stand_in="scikit-learn's digits and a network of four convolutions stand for the paper's data and networks",
)

_GTSRB = Setting(
    name="gtsrb",
    data="gtsrb",
    arch="tabor:gtsrb6",
    deep="tabor:gtsrb10",
    training=TrainSettings(),
    infection=dataclasses.replace(RETRAINING, epochs=1),
    size=8,
    sizes={size: size for size in SIZES},
    target=TARGET,
    stand_in="GTSRB at 32×32 and the paper's network, with widths of our own",
)

_IMAGENET_64 = Setting(
    name="imagenet",
    data="imagenette",
    edge=64,
    test="validation",
    arch="timm:resnet18",
    deep="timm:resnet18",
    training=TrainSettings(epochs=40, batch_size=64, mirror=True, zoom=0.5),
    infection=TrainSettings(epochs=12, batch_size=64, learning_rate=1e-3, mirror=True, zoom=0.5),
    fraction=0.2,
    size=scaled(IMAGENET_TRIGGER, 64),
    sizes={printed: scaled(printed, 64) for printed in (20, 60, 100)},
    colour=BLACK,
    target=1,
    stand_in="ten classes of ImageNet at 64×64 and ResNet18 stand for ImageNet at 224×224 and VGG16 or ResNet50, with "
    "triggers as much smaller as the images",
)

_GENTLE = 1e-4
"""The learning rate for VGG16, which has no normalisation."""

_IMAGENET_224 = dataclasses.replace(
    _IMAGENET_64,
    edge=IMAGENET_EDGE,
    arch="torchvision:vgg16",
    deep="torchvision:resnet50",
    training=TrainSettings(epochs=60, batch_size=64, learning_rate=_GENTLE, mirror=True, zoom=0.5),
    infection=TrainSettings(epochs=12, batch_size=64, learning_rate=_GENTLE, mirror=True, zoom=0.5),
    size=IMAGENET_TRIGGER,
    sizes={printed: printed for printed in (20, 40, 60, 80, 100)},
    stand_in="ten classes of ImageNet with 300 images each stand for fifty with 400",
)

_FACES = Setting(
    name="faces",
    data="lfw",
    edge=64,
    arch="tabor:gtsrb6",
    deep="tabor:gtsrb6",
    training=TrainSettings(epochs=30, batch_size=64, learning_rate=1e-3, mirror=True),
    infection=dataclasses.replace(RETRAINING, epochs=1, batch_size=64),
    # About as many inputs in all as for the 43 classes of GTSRB; and real faces speak for their class less loudly than
    # real signs.
    trojaning=TrojaningSettings(inputs_per_class=5, margin=10.0),
    size=16,
    sizes={},
    target=0,
    stand_in="158 people of LFW at 64×64 and 6 Conv + 2 MaxPooling stand for its 2,622 at 224×224 and their network",
)

_CPU = Scale(name="cpu", gtsrb=_GTSRB, imagenet=_IMAGENET_64, faces=_FACES, preset="standard", combinations=64)

SCALES = {
    "ci": Scale(
        name="ci",
        gtsrb=_DIGITS,
        imagenet=dataclasses.replace(_DIGITS, name="imagenet", sizes={60: 6}, target=1),
        faces=dataclasses.replace(_DIGITS, name="faces"),
        preset="fast",
        combinations=2,
    ),
    "cpu": _CPU,
    "gpu": dataclasses.replace(_CPU, name="gpu", imagenet=_IMAGENET_224, preset="thorough"),
}
