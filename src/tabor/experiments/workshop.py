"""Makes the models of an experiment and scans them; what is in its folder already is not done again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tabor.attacks.badnet import RETRAINING, Backdoor, attack_success, infect_classifier, plan_backdoors, true_backdoors
from tabor.attacks.poison import SQUARE
from tabor.attacks.trojaning import TrojaningSettings, trojan_classifier
from tabor.data import ImageSet, load_images
from tabor.demo import INFECTION, TRAINING
from tabor.errors import SettingError
from tabor.methods.base import Method
from tabor.models import LoadedModel, load_model
from tabor.position import Position
from tabor.repair.patched_file import write_patched
from tabor.repair.patching import patch
from tabor.repair.rounds import Repair
from tabor.result import ScanResult
from tabor.scanning import scan
from tabor.training import TrainSettings, train_classifier
from tabor.zoo.build import ENOUGH_SUCCESS, POISON_FRACTION
from tabor.zoo.plans import LOGO, SIZES, TARGET

MOST_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large an experiment is run.

    Attributes:
        name: what `--scale` calls it.
        data: "digits", or the kind of the images that the caller has to give.
        arch: the network.
        deep: the deeper network of Figure 10.
        training, infection: of the base and of its victims.
        size: edge of the first trigger in pixels.
        sizes, target: edges of Table 1(a)'s triggers, and the class they send images to.
        preset: of the scans.
        images: how many a scan takes.
        combinations: how many of the 64 settings of λ Figure 9 goes through, evenly chosen.
        stand_in: what stands for the paper's data and network, in words.
    """

    name: str
    data: str
    arch: str
    deep: str
    training: TrainSettings
    infection: TrainSettings
    size: int
    sizes: tuple[int, ...]
    target: int
    preset: str
    images: int
    combinations: int
    stand_in: str


_GTSRB = Scale(
    name="cpu",
    data="GTSRB",
    arch="tabor:gtsrb6",
    deep="tabor:gtsrb10",
    training=TrainSettings(),
    infection=dataclasses.replace(RETRAINING, epochs=1),
    size=8,
    sizes=SIZES,
    target=TARGET,
    preset="standard",
    images=512,
    combinations=64,
    stand_in="GTSRB at 32×32 and the paper's network, with widths of our own",
)

SCALES = {
    "ci": Scale(
        name="ci",
        data="digits",
        arch="tabor:digits4",
        deep="tabor:digits4",
        training=TRAINING,
        infection=INFECTION,
        size=6,
        sizes=(6,),
        target=7,
        preset="fast",
        images=360,
        combinations=2,
        stand_in="scikit-learn's digits and a network of four convolutions stand for GTSRB and the paper's",
    ),
    "cpu": _GTSRB,
    "gpu": dataclasses.replace(_GTSRB, name="gpu", preset="thorough"),
}


@dataclass(frozen=True)
class Plant:
    """A trigger to plant: a square, or the caller's picture, of that edge in pixels."""

    picture: str
    size: int
    position: Position
    target: int

    @property
    def name(self) -> str:
        """For files."""
        return f"{self.picture}-{self.size}-{self.position}-{self.target}"


class Workshop:
    """Where an experiment's models are made and scanned.

    Args:
        scale: how large it is.
        work: folder for models and scans.
        data: clean images with the splits "train" and "test"; not needed where the scale's data are the digits.
        picture: the file that stands for the logo; a square takes its place where there is none.
        device: of the training and the scans.
        seed: of every random draw.
        tell: takes a line for the person who watches.

    Raises:
        SettingError: the scale needs data, and none are given.
    """

    def __init__(
        self,
        scale: Scale,
        work: Path,
        *,
        data: str | None = None,
        picture: str | None = None,
        device: str = "auto",
        seed: int = 0,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        if data is None and scale.data != "digits":
            raise SettingError(f"the scale {scale.name} runs on {scale.data}; give its folder with --data")
        self.scale, self.seed = scale, seed
        self._work, self._device, self._tell = work / scale.name, device, tell
        self._data = "digits" if scale.data == "digits" or data is None else data
        self._picture = picture

    @property
    def logo(self) -> str:
        """The second kind of trigger: the picture, where one was given."""
        return SQUARE if self._picture is None else LOGO

    @cached_property
    def train(self) -> ImageSet:
        """The images to train on."""
        return load_images(self._data, split="train")

    @cached_property
    def test(self) -> ImageSet:
        """The images to measure on, of which the scans take some."""
        return load_images(self._data, split="test")

    def base(self, arch: str) -> Path:
        """Returns a clean model."""
        path = self._file(f"{arch.partition(':')[2]}-{self.seed}")
        if not path.exists():
            self._tell(f"training {path.stem}")
            train_classifier(arch, self.train, self.test, path, self.scale.training, self.seed, device=self._device)
        return path

    def victim(self, plants: Sequence[Plant], arch: str | None = None) -> Path:
        """Returns a model infected by BadNet with all of these triggers."""
        base = self.base(arch or self.scale.arch)
        path = self._file("-".join([base.stem, *(plant.name for plant in plants)]))
        if not path.exists():
            model = load_model(base)
            self._tell(f"infecting {path.stem}")
            infect_classifier(
                model,
                self.train,
                self.test,
                [self._backdoor(plant, model) for plant in plants],
                path,
                POISON_FRACTION,
                self.scale.infection,
                self.seed,
                rounds=MOST_ROUNDS,
                enough=ENOUGH_SUCCESS,
                device=self._device,
            )
        return path

    def trojaned(self, plant: Plant) -> Path:
        """Returns a model infected by Trojan Attack."""
        base = self.base(self.scale.arch)
        path = self._file(f"{base.stem}-trojaned-{plant.name}")
        if not path.exists():
            model = load_model(base)
            self._tell(f"infecting {path.stem}")
            trojan_classifier(model, self.test, self._backdoor(plant, model), path, TrojaningSettings(), self.seed)
        return path

    def scan(self, model: Path, method: str | Method = "tabor", label: str | None = None) -> ScanResult:
        """Scans a model; a method of one's own needs a label for its folder."""
        out = self._work / "scans" / f"{model.stem}-{label or method}"
        if (out / "result.json").exists():
            return ScanResult.load(out)
        self._tell(f"scanning {out.name}")
        images = load_images(self._data, split="test", limit=self.scale.images, seed=self.seed)
        return scan(
            load_model(model),
            images,
            preset=self.scale.preset,
            method=method,
            seed=self.seed,
            device=self._device,
            out=out,
        )

    def patched(self, model: Path, result: ScanResult) -> Path:
        """Returns the model with the triggers unlearned that a scan of it restored."""
        path = self._file(f"{model.stem}-patched")
        if not path.exists():
            self._tell(f"patching {model.stem}")
            loaded = load_model(model)
            images = load_images(self._data, split="test", limit=self.scale.images, seed=self.seed)
            write_patched(path, loaded, Repair(patch(loaded, result, images, seed=self.seed, device=self._device)))
        return path

    def planted(self, model: Path) -> list[Backdoor]:
        """Returns the true triggers that a model's file records."""
        return true_backdoors(load_model(model).record)

    def successes(self, model: Path) -> list[float]:
        """Returns the attack success of each true trigger over the test images of other classes."""
        loaded = load_model(model)
        return [attack_success(loaded, self.test.images, self.test.labels, b) for b in self.planted(model)]

    def _backdoor(self, plant: Plant, model: LoadedModel) -> Backdoor:
        picture = str(self._picture) if plant.picture == LOGO else plant.picture
        shape = model.architecture
        (backdoor,) = plan_backdoors(
            [picture], [plant.size], [plant.position], [plant.target], shape.image_shape, shape.num_classes
        )
        return backdoor

    def _file(self, name: str) -> Path:
        path = self._work / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
