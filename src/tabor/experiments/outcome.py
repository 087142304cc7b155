"""One scan beside what was planted: the row of a table, and the triggers to show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tabor.backdoor import Backdoor
from tabor.experiments.report import Shown
from tabor.fidelity import Correctness, Fidelity, correctness, fidelity
from tabor.result import ScanResult

COLUMNS = ("reported", "", "F1", "s")


@dataclass(frozen=True)
class Outcome:
    """A scan of a model whose backdoors are known.

    Attributes:
        planted: the true backdoors.
        result: what the scan found.
        works: whether their triggers still work; a class all of whose triggers were unlearned must not be reported.
    """

    planted: Sequence[Backdoor]
    result: ScanResult
    works: Sequence[bool] = ()

    @property
    def wanted(self) -> set[int]:
        """The classes that must be reported, and no other."""
        works = self.works or [True] * len(self.planted)
        return {backdoor.target for backdoor, working in zip(self.planted, works, strict=True) if working}

    @property
    def symbol(self) -> Correctness:
        """Of §5.2.2."""
        return correctness(self.result, self.wanted)

    @property
    def right(self) -> bool:
        """Whether the wanted classes are reported, and no other; where none are wanted, that the model is clean."""
        return set(self.result.targets) == self.wanted and self.symbol is Correctness.SUCCESS

    def fidelity(self, backdoor: Backdoor) -> Fidelity:
        """Compares what was restored for the backdoor's class with its true trigger (Eq. 9)."""
        return fidelity(self.result.trigger(backdoor.target).mask, backdoor.trigger.mask)

    def cells(self) -> list[str]:
        """Returns the cells for `COLUMNS`."""
        scores = ", ".join(f"{b.target}: {self.fidelity(b).f1:.2f}" for b in self.planted)
        reported = ", ".join(map(str, self.result.targets)) or "–"
        return [reported, self.symbol.value, scores or "–", f"{self.result.timing['seconds']:.0f}"]

    def figures(self) -> dict[str, Any]:
        """Returns the same and more as plain values."""
        found = {finding.index: finding for finding in self.result.classes}
        return {
            "verdict": str(self.result.verdict),
            "reported": list(self.result.targets),
            "symbol": self.symbol.value,
            "score": self.result.score,
            "seconds": self.result.timing["seconds"],
            "planted": [
                {
                    "target": b.target,
                    "trigger": b.description,
                    "anomaly_index": found[b.target].anomaly_index,
                    "patch_index": patch.anomaly_index if (patch := found[b.target].patch) else None,
                    **asdict(self.fidelity(b)),
                }
                for b in self.planted
            ],
        }

    def restored(self, name: str) -> list[Shown]:
        """Returns what was restored for each planted class, to be shown under a name."""
        targets = dict.fromkeys(backdoor.target for backdoor in self.planted)
        return [Shown(f"{name}, class {target}", self.result.trigger(target)) for target in targets]


def true_triggers(planted: Sequence[Backdoor]) -> list[Shown]:
    """Returns the true triggers, to be shown."""
    return [Shown(f"{b.description} → {b.target}", b.trigger) for b in planted]
