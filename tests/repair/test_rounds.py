"""Patching and scanning again: when it ends, and that no trigger is forgotten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from tabor.errors import SettingError
from tabor.repair.patching import PatchOutcome
from tabor.repair.rounds import MOST_ROUNDS, Repair, patch_and_rescan
from tabor.repair.unlearning import UnlearningSettings
from tabor.result import ScanResult

from .conftest import Victim, square

Found = Callable[..., ScanResult]
TARGETS = (2,)


class Scanner:
    """A scan that finds what it is told to, one answer after the other, and remembers the models."""

    def __init__(self, *answers: ScanResult) -> None:
        self.answers = list(answers)
        self.models: list[nn.Module] = []

    def __call__(self, model: nn.Module) -> ScanResult:
        self.models.append(model)
        return self.answers.pop(0)


def repaired(
    victim: Victim,
    found: Found,
    scanner: Scanner,
    *,
    rounds: int = MOST_ROUNDS,
    settings: UnlearningSettings | None = None,
) -> tuple[Repair, list[PatchOutcome]]:
    outcomes: list[PatchOutcome] = []
    settings = settings or UnlearningSettings(steps=30)
    repair = patch_and_rescan(
        victim.load(),
        [found()],
        victim.images,
        scanner,
        settings=settings,
        rounds=rounds,
        device="cpu",
        on_round=outcomes.append,
    )
    assert scanner.models == [outcome.model for outcome in outcomes]
    assert repair.outcome is outcomes[-1]
    return repair, outcomes


def test_it_ends_where_nothing_is_found(victim: Victim, found: Found) -> None:
    repair, outcomes = repaired(victim, found, Scanner(found(())))
    assert [scan.targets for scan in repair.rescans] == [()]
    assert len(outcomes) == 1


def test_what_a_scan_finds_is_stamped_beside_what_was_known(victim: Victim, found: Found) -> None:
    second = found(mask=square(0, 1, 4))
    repair, outcomes = repaired(victim, found, Scanner(second, found(())))
    assert [len(outcome.restored) for outcome in outcomes] == [1, 2]
    assert torch.equal(outcomes[1].restored[1].backdoor.trigger.mask, square(0, 1, 4).mask)
    assert [scan.targets for scan in repair.rescans] == [TARGETS, ()]
    before = [outcome.restored[0].success.before for outcome in outcomes]
    assert before[0] == before[1] > 0.8  # both rounds began with the model that was given


def test_it_ends_after_some_rounds(victim: Victim, found: Found) -> None:
    again = found(mask=square(0, 1, 4))
    repair, outcomes = repaired(victim, found, Scanner(again, again, again), rounds=2)
    assert len(outcomes) == len(repair.rescans) == 2
    assert repair.rescans[-1].targets == TARGETS


def test_it_ends_where_a_stamped_trigger_still_works(victim: Victim, found: Found) -> None:
    weak = UnlearningSettings(steps=1, learning_rate=1e-7)
    repair, outcomes = repaired(victim, found, Scanner(found()), settings=weak)
    assert len(outcomes) == 1
    assert not repair.outcome.unlearned


def test_the_scans_are_told(victim: Victim, found: Found) -> None:
    repair, _ = repaired(victim, found, Scanner(replace(found(()), reason="nothing stands out")))
    assert repair.to_dict()["rescans"] == [{"verdict": "clean", "reason": "nothing stands out", "targets": []}]


def test_no_round_is_refused(victim: Victim, found: Found) -> None:
    with pytest.raises(SettingError, match="at least one round"):
        repaired(victim, found, Scanner(), rounds=0)


def test_the_seed_is_that_of_every_patching(victim: Victim, found: Found) -> None:
    """With another one it would measure on images that the caller's scan searched with."""
    settings = UnlearningSettings(steps=2)
    scanner = Scanner(found(()))
    repair = patch_and_rescan(victim.load(), [found()], victim.images, scanner, settings=settings, seed=3, device="cpu")
    assert repair.outcome.seed == 3
