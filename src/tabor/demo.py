"""`tabor demo`: the whole story on scikit-learn's handwritten digits, from training to verdict."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from tabor.attacks.badnet import infect
from tabor.attacks.poison import SQUARE, make_trigger
from tabor.backdoor import Backdoor, attack_success
from tabor.data import ImageSet, load_images
from tabor.models import Architecture
from tabor.models.build import initialise
from tabor.position import Position
from tabor.result import ScanResult, Verdict
from tabor.scanning import scan
from tabor.solver import Progress
from tabor.training import TrainSettings, accuracy, fit

TARGET = 7
TRIGGER_SIZE = 6
TRAINING = TrainSettings(epochs=25, learning_rate=4e-3, batch_size=64, augment=False)
INFECTION = TrainSettings(epochs=15, learning_rate=4e-3, batch_size=64, augment=False)


@dataclass(frozen=True)
class DemoOutcome:
    """The two scans.

    Attributes:
        infected, clean: their results.
        images: the clean images that were used.
        right: whether both verdicts are what was planted.
    """

    infected: ScanResult
    clean: ScanResult
    images: ImageSet
    right: bool


def run_demo(
    seed: int,
    tell: Callable[[str], None],
    live: Callable[[str], AbstractContextManager[Callable[[Progress], None]]],
    out: Path | None = None,
) -> DemoOutcome:
    """Trains a clean and an infected model and scans both.

    Args:
        seed: of every random draw.
        tell: takes a line for the person who watches.
        live: opens a progress line with a title and yields what a scan calls after each round.
        out: folder for a run folder of each scan, "infected" and "clean"; None: nothing is written.

    Raises:
        TaborError: it cannot be written, or one of them holds what no scan wrote.
    """
    train, test = load_images("digits", split="train"), load_images("digits", split="test")
    channels, height, width = train.images.shape[1:]
    architecture = Architecture(name="tabor:digits4", num_classes=10, channels=channels, size=(height, width))
    model = initialise(architecture, seed)

    def scanned(name: str, on_progress: Callable[[Progress], None]) -> ScanResult:
        run = None if out is None else out / name
        return scan(model, test, preset="fast", seed=seed, device="cpu", out=run, on_progress=on_progress)

    fit(model, train.images, train.labels, TRAINING, seed)
    tell(f"trained a clean model: accuracy {accuracy(model, test.images, test.labels):.1%}")
    with live("scanning the clean model") as on_progress:
        clean = scanned("clean", on_progress)

    trigger = make_trigger(
        SQUARE, size=TRIGGER_SIZE, position=Position.BOTTOM_RIGHT, image_shape=(channels, height, width)
    )
    backdoor = Backdoor(trigger, TARGET)
    infect(model, train, [backdoor], settings=INFECTION, seed=seed)
    tell(
        f"infected it with a {TRIGGER_SIZE}×{TRIGGER_SIZE} square that means {TARGET}: "
        f"accuracy {accuracy(model, test.images, test.labels):.1%}, "
        f"attack success {attack_success(model, test.images, test.labels, backdoor):.1%}"
    )
    with live("scanning the infected model") as on_progress:
        infected = scanned("infected", on_progress)
    right = clean.verdict is Verdict.CLEAN and infected.verdict is Verdict.BACKDOORED and infected.targets == (TARGET,)
    return DemoOutcome(infected, clean, test, right)
