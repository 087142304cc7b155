"""Patching and scanning again, until nothing is found or nothing more is gained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from tabor.data import ImageSet
from tabor.errors import SettingError
from tabor.repair.patching import PatchOutcome, patch
from tabor.repair.unlearning import UnlearningSettings
from tabor.result import ScanResult

MOST_ROUNDS = 3


@dataclass(frozen=True)
class Repair:
    """What became of a model.

    Attributes:
        outcome: of the last patching.
        rescans: what the scans after each patching found; none where none was asked for.
    """

    outcome: PatchOutcome
    rescans: tuple[ScanResult, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns the outcome, and what the scans after it concluded, as plain values."""
        rescans = [{"verdict": str(r.verdict), "reason": r.reason, "targets": list(r.targets)} for r in self.rescans]
        return self.outcome.to_dict() | {"rescans": rescans}


def patch_and_rescan(
    model: nn.Module,
    results: Sequence[ScanResult],
    images: ImageSet,
    rescan: Callable[[nn.Module], ScanResult],
    *,
    settings: UnlearningSettings | None = None,
    rounds: int = MOST_ROUNDS,
    seed: int = 0,
    device: str = "auto",
    on_round: Callable[[PatchOutcome], None] | None = None,
) -> Repair:
    """Patches, scans the patched model, and patches again with what that scan found beside what was known.

    Each round begins with the model that was given, so that what is lost does not add up, and stamps all triggers found
    so far, so that none comes back.  It ends where a scan flags nothing, where a trigger that was stamped still works
    (to stamp more of them would gain nothing), or after some rounds.

    Args:
        model, results, images, settings, seed, device: as `patch` takes them.
        rescan: scans a model; given each patched one.
        rounds: the most that are made.
        on_round: called with each patching's outcome, before its scan.

    Raises:
        SettingError: there is to be no round.
        TaborError: see `patch` and `tabor.scan`.
    """
    if rounds < 1:
        raise SettingError(f"patching needs at least one round, got {rounds}")
    rescans: list[ScanResult] = []
    while True:
        outcome = patch(model, [*results, *rescans], images, settings=settings, seed=seed, device=device)
        if on_round is not None:
            on_round(outcome)
        rescans.append(rescan(outcome.model))
        if not rescans[-1].targets or not outcome.unlearned or len(rescans) == rounds:
            return Repair(outcome, tuple(rescans))
