"""Makes the models of an experiment and scans them; what is in its folder already is not done again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tabor.access import choose_device
from tabor.attacks.badnet import infect_classifier
from tabor.attacks.plant import LOGO, Plant
from tabor.attacks.poison import SQUARE
from tabor.attacks.trojaning import trojan_classifier
from tabor.backdoor import Backdoor, attack_success, check_planted, true_backdoors
from tabor.data import ImageSet, load_images
from tabor.errors import SettingError, one_line
from tabor.experiments.scales import DIGITS, Scale, Setting
from tabor.files import sha256
from tabor.methods.base import Method
from tabor.models import load_model
from tabor.models.safetensors_file import read_record
from tabor.presets import choose
from tabor.repair.patched_file import write_patched
from tabor.repair.patching import patch
from tabor.repair.rounds import Repair
from tabor.result import RESULT_FILE, ScanResult
from tabor.scanning import scan
from tabor.training import accuracy, train_classifier
from tabor.zoo.build import ENOUGH_SUCCESS

MOST_ROUNDS = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Workshop:
    """Where an experiment's models are made and scanned.

    Attributes:
        scale: how large it is.
        setting: one of the scale's: the data and the networks.
        work: folder for models and scans.
        data: the folder that holds each data set as a folder of its name; None where all are the digits.
        picture: the file that stands for the logo; a square takes its place where there is none.
        device: of the training, the scans and what is measured; Trojan Attack runs on the CPU.
        seed: of every random draw.
        tell: takes a line for the person who watches.
    """

    scale: Scale
    setting: Setting
    work: Path
    data: Path | None = None
    picture: str | None = None
    device: str = "auto"
    seed: int = 0
    tell: Callable[[str], None] = lambda _: None

    def at(self, setting: Setting) -> Workshop:
        """Returns the workshop for another setting.

        Raises:
            SettingError: the folder with its images is missing; better now than after hours in the first setting.
        """
        other = dataclasses.replace(self, setting=setting)
        _ = other.source
        return other

    def signs_and_photographs(self) -> list[Workshop]:
        """Returns the workshops for GTSRB and ImageNet; one where the digits stand for both.

        Raises:
            SettingError: see `at`.
        """
        signs, photographs = self.at(self.scale.gtsrb), self.at(self.scale.imagenet)
        return [signs] if signs.setting.data == photographs.setting.data else [signs, photographs]

    @property
    def logo(self) -> str:
        """The second kind of trigger: the picture, where one was given."""
        return SQUARE if self.picture is None else LOGO

    @property
    def source(self) -> str:
        """Where the setting's images are: a folder, or "digits".

        Raises:
            SettingError: there is no such folder.
        """
        name = self.setting.data
        if name == DIGITS:
            return name
        folder = None if self.data is None else self.data / name
        if folder is None or not folder.is_dir():
            missing = "" if folder is None else f"; there is no {one_line(folder)}"
            raise SettingError(
                f"the scale {self.scale.name} needs the data set {name}: give the folder that holds it, "
                f"as a folder of that name, with --data{missing}"
            )
        return str(folder)

    @cached_property
    def train(self) -> ImageSet:
        """The images to train on."""
        return load_images(self.source, split="train", size=self.setting.edge)

    @cached_property
    def test(self) -> ImageSet:
        """The images to measure on, of which the scans take some."""
        return load_images(self.source, split=self.setting.test, size=self.setting.edge)

    def base(self, arch: str) -> Path:
        """Returns a clean model: the setting's own, where it has one, else one trained of that architecture.

        Raises:
            SettingError: the setting's own has other classes than the images.
        """
        if self.setting.base is not None:
            return self._fitting(self.setting.base)
        path = self._file(f"{arch.partition(':')[2]}-{self.seed}")
        if not path.exists():
            train, test = self.train, self.test  # which may be missing: first, as nothing is being trained then
            self.tell(f"training {path.stem}")
            train_classifier(arch, train, test, path, self.setting.training, self.seed, device=self.device)
        return path

    def _fitting(self, base: Path) -> Path:
        told, there = load_model(base).architecture.num_classes, len(self.test.class_names)
        if told != there:
            raise SettingError(f"{one_line(base)} tells {told} classes apart, {self.setting.data} has {there}")
        return base

    def victim(self, plants: Sequence[Plant], arch: str | None = None) -> Path:
        """Returns a model infected by BadNet with all of these triggers.

        Raises:
            SettingError: it is there already, infected with others: the caller's picture was another one then.
        """
        base = self.base(arch or self.setting.arch)
        stem = base.stem if self.setting.base is None else f"{base.stem}-{sha256(base)[:8]}-{self.seed}"
        path = self._file("-".join([stem, *(plant.name for plant in plants)]))
        model = load_model(base)
        backdoors = [plant.backdoor(model.architecture, self.picture) for plant in plants]
        if path.exists():
            check_planted(self.record(path), backdoors, path.stem)
        else:
            self.tell(f"infecting {path.stem}")
            infect_classifier(
                model,
                self.train,
                self.test,
                backdoors,
                path,
                self.setting.fraction,
                self.setting.infection,
                self.seed,
                rounds=MOST_ROUNDS,
                enough=ENOUGH_SUCCESS,
                device=self.device,
            )
        return path

    def trojaned(self, plant: Plant) -> Path:
        """Returns a model infected by Trojan Attack."""
        base = self.base(self.setting.arch)
        path = self._file(f"{base.stem}-trojaned-{plant.name}")
        if not path.exists():
            model = load_model(base)
            self.tell(f"infecting {path.stem}")
            backdoor, settings = plant.backdoor(model.architecture, self.picture), self.setting.trojaning
            trojan_classifier(model, self.test, backdoor, path, settings, self.seed)
        return path

    def scan(
        self, model: Path, method: str | Method = "tabor", label: str | None = None, like: str | None = None
    ) -> ScanResult:
        """Scans a model, unless this very scan of it is there.

        Args:
            model: its file.
            method: one of one's own needs a label.
            label: for the scan's folder; None: the method's name.
            like: label of another scan of this model, whose patches are taken over where they would come out the same.
        """
        out = self._scan_folder(model, label or str(method))
        if (out / RESULT_FILE).exists() and self._is_of(found := ScanResult.load(out), model, method):
            return found
        self.tell(f"scanning {out.name}")
        return scan(
            load_model(model),
            self._scanned_images(),
            preset=self.scale.preset,
            method=method,
            seed=self.seed,
            device=self.device,
            out=out,
            like=None if like is None else self._scan_folder(model, like),
        )

    def _is_of(self, found: ScanResult, model: Path, method: str | Method) -> bool:
        """Whether a scan is of this file, by the method and the settings of today."""
        chosen, solver = choose(method, self.scale.preset, self.setting.images)
        asked = {"solver": dataclasses.asdict(solver), chosen.name: chosen.describe()}
        made = {name: found.settings.get(name) for name in asked}
        same = made == json.loads(json.dumps(asked))
        return same and (found.model["sha256"], found.seed) == (sha256(model), self.seed)

    def patched(self, model: Path, result: ScanResult) -> Path:
        """Returns the model with the triggers unlearned that a scan of it restored."""
        path = self._file(f"{model.stem}-patched")
        if not path.exists() or self.record(path)["patched"]["sha256"] != sha256(model):
            self.tell(f"patching {model.stem}")
            loaded = load_model(model)
            patched = patch(loaded, result, self._scanned_images(), seed=self.seed, device=self.device)
            path.unlink(missing_ok=True)  # of a model that was replaced since
            write_patched(path, loaded, Repair(patched))
        return path

    def record(self, model: Path) -> dict[str, Any]:
        """Returns what a model's file says of its training: the clean accuracy, and each backdoor's attack success."""
        return read_record(model)

    def clean_accuracy(self, model: Path) -> float:
        """Returns the share of the test images that a model is right on; as its record says, where it has one."""
        recorded: float | None = self.record(model).get("clean_accuracy")
        if recorded is not None:
            return recorded
        where = choose_device(self.device)
        test = self.test.to(where)
        return accuracy(load_model(model).to(where), test.images, test.labels)

    def planted(self, model: Path) -> list[Backdoor]:
        """Returns the true triggers that a model's file records."""
        return true_backdoors(self.record(model))

    def successes(self, model: Path) -> list[float]:
        """Returns the attack success of each true trigger over the test images of other classes."""
        where = choose_device(self.device)
        loaded, test = load_model(model).to(where), self.test.to(where)
        return [attack_success(loaded, test.images, test.labels, b) for b in true_backdoors(loaded.record)]

    def _scanned_images(self) -> ImageSet:
        setting = self.setting
        return load_images(self.source, split=setting.test, size=setting.edge, limit=setting.images, seed=self.seed)

    @property
    def _folder(self) -> Path:
        """The first setting's is the scale's, the others' are inside."""
        folder = self.work / self.scale.name
        return folder if self.setting.name == self.scale.gtsrb.name else folder / self.setting.name

    def _scan_folder(self, model: Path, label: str) -> Path:
        return self._folder / "scans" / f"{model.stem}-{label}"

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.safetensors"
