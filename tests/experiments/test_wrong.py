"""An experiment whose outcome is not as it must be says so, and the command fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import pytest

from tabor.backdoor import Backdoor
from tabor.cli import main
from tabor.experiments import EXPERIMENTS, Report, Workshop
from tabor.experiments.figure7 import two_classes
from tabor.experiments.figure8 import one_class
from tabor.experiments.figure9 import all_weights
from tabor.experiments.table1a import triggers_on_gtsrb
from tabor.methods.base import Method
from tabor.result import ScanResult

from .made_up import Shop, result, trigger
from .test_experiments import report


class Narrow(Shop):
    """The true trigger is half of what is restored."""

    def planted(self, model: Path) -> list[Backdoor]:
        return [] if "clean" in model.name else [Backdoor(trigger(1), 2, model.name)]


class Alarmed(Shop):
    """TABOR reports class 2 of every model, the clean one too."""

    def scan(
        self, model: Path, method: str | Method = "tabor", label: str | None = None, like: str | None = None
    ) -> ScanResult:
        return result(2) if method == "tabor" else result()


class Two(Shop):
    """Two triggers for two classes, of which TABOR reports one; patching takes them out."""

    targets = (2, 1)

    def planted(self, model: Path) -> list[Backdoor]:
        return [Backdoor(trigger(2), target, str(target)) for target in self.targets]

    def successes(self, model: Path) -> list[float]:
        return [0.1, 0.1] if "patched" in model.name else [1.0, 1.0]

    def patched(self, model: Path, found: ScanResult) -> Path:
        return Path(f"{model}-patched")


class Same(Two):
    """Two triggers for one class, which TABOR reports though neither works any more."""

    targets = (2, 2)


class Half(Shop):
    """One of two scans finds nothing."""

    def scan(
        self, model: Path, method: str | Method = "tabor", label: str | None = None, like: str | None = None
    ) -> ScanResult:
        return result() if label == "tabor-1-of-2" else super().scan(model, method, label, like)


Experiment = Callable[[Workshop], Report]


@pytest.mark.parametrize(
    ("experiment", "shop", "wrong"),
    [
        pytest.param(triggers_on_gtsrb, Alarmed(), ["the clean model: TABOR reports a class"], id="a false alarm"),
        pytest.param(two_classes, Two(), ["gtsrb: TABOR reports [2]"], id="one class of two"),
        pytest.param(
            one_class,
            Same(),
            [f"gtsrb, patched {n}: [2] is reported, not []" for n in ("once", "twice")],
            id="nothing left",
        ),
        pytest.param(all_weights, Half(), ["1 of TABOR's 2 verdicts are right"], id="half of the weights"),
    ],
)
def test_what_is_wrong_is_said(experiment: Experiment, shop: Shop, wrong: Sequence[str]) -> None:
    assert experiment(cast(Workshop, shop)).wrong == wrong


def test_triggers_restored_badly_are_wrong() -> None:
    (told,) = triggers_on_gtsrb(cast(Workshop, Narrow())).wrong
    assert told.startswith("the mean F1 of TABOR's triggers is 0.667")


@pytest.mark.parametrize(("wrong", "code"), [((), 0), (("it fell over",), 2)], ids=["right", "wrong"])
def test_the_command_fails_with_the_experiment(
    wrong: Sequence[str], code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(EXPERIMENTS, "figure7", lambda _: report(*wrong))
    assert main(["reproduce", "figure7", "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out")]) == code
