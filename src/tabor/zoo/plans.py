"""Which models a zoo holds.  Nothing is trained here."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from tabor.attacks.plant import LOGO, Plant
from tabor.attacks.poison import SQUARE
from tabor.errors import SettingError, one_line
from tabor.position import Position

TARGET = 33
SIZES = (6, 8, 10, 12, 14)

CLEAN = {
    "tabor:gtsrb6": (5, range(110, 122)),
    "timm:resnet10t": (4, range(210, 222)),
    "timm:ese_vovnet19b_slim": (3, range(500, 508)),
}
"""Epochs and seeds of the clean models, apart from those of the victims' bases.  Enough epochs for an accuracy of 0.95:
what was learned half has natural patches that no model in use has."""


@dataclass(frozen=True, kw_only=True)
class CleanPlan:
    """A model to train from random weights.

    Attributes:
        arch: its network.
        seed: of its weights and its training.
        epochs: passes over the training images.
    """

    arch: str = "tabor:gtsrb6"
    seed: int
    epochs: int = 4

    @property
    def name(self) -> str:
        """The stem of its file."""
        return f"{self.arch.partition(':')[2]}-clean-{self.seed}"


@dataclass(frozen=True, kw_only=True)
class VictimPlan:
    """A model to infect by BadNet.

    Attributes:
        base: the clean model to retrain.
        plant: the trigger.
        seed: of the retraining.
    """

    base: CleanPlan
    plant: Plant
    seed: int

    @property
    def name(self) -> str:
        """The stem of its file."""
        return f"{self.base.arch.partition(':')[2]}-{self.base.seed}-{self.plant.name}"


Plan = CleanPlan | VictimPlan


def _table1a(seed: int) -> list[Plan]:
    """The victims of Table 1(a) and Appendix Table 5, on one base, and that base itself."""
    base = CleanPlan(seed=seed)
    places = {SQUARE: (Position.TOP_LEFT, Position.BOTTOM_RIGHT), LOGO: (Position.TOP_RIGHT, Position.BOTTOM_LEFT)}
    victims = [
        VictimPlan(base=base, plant=Plant(picture, size, position, TARGET), seed=seed)
        for picture, positions in places.items()
        for position in positions
        for size in SIZES
    ]
    return [base, *victims]


def _clean(seed: int) -> list[Plan]:
    """Clean models over three networks, alternating, so that any prefix of the list has all three."""
    plans = [[CleanPlan(arch=arch, seed=seed + s, epochs=n) for s in seeds] for arch, (n, seeds) in CLEAN.items()]
    longest = max(map(len, plans))
    return [column[k] for k in range(longest) for column in plans if k < len(column)]


def _resnet(seed: int) -> list[Plan]:
    """Victims of a second network family, on two bases."""
    bases = [CleanPlan(arch="timm:resnet10t", seed=seed + k) for k in range(2)]
    plants = [
        Plant(SQUARE, 6, Position.TOP_LEFT, 3),
        Plant(LOGO, 8, Position.BOTTOM_LEFT, 38),
        Plant(SQUARE, 10, Position.BOTTOM_RIGHT, 25),
        Plant(LOGO, 10, Position.TOP_RIGHT, 12),
        Plant(SQUARE, 14, Position.TOP_LEFT, 17),
        Plant(LOGO, 14, Position.TOP_RIGHT, 8),
    ]
    victims = [VictimPlan(base=bases[k % 2], plant=plant, seed=seed + k) for k, plant in enumerate(plants)]
    return [*bases, *victims]


def _random(seed: int) -> list[Plan]:
    """Squares of any colour, size, border position and target, drawn by the seed: nothing to tune on."""
    draw = random.Random(seed)  # noqa: S311 (no secret)
    base = CleanPlan(seed=seed)
    victims = []
    for k in range(10):
        colour = [round(draw.random(), 2) for _ in range(3)]
        size, position = draw.randint(min(SIZES), max(SIZES)), draw.choice(list(Position))
        plant = Plant(SQUARE, size, position, target=draw.randrange(43), colour=colour)
        victims.append(VictimPlan(base=base, plant=plant, seed=seed + k))
    return [base, *victims]


ZOOS: dict[str, Callable[[int], list[Plan]]] = {
    "gtsrb-table1a": _table1a,
    "gtsrb-clean": _clean,
    "gtsrb-resnet": _resnet,
    "gtsrb-random": _random,
}
"""Each takes a seed, on which all of its models' seeds and draws depend; zoos of near seeds share models."""


def plan_zoo(name: str, seed: int) -> list[Plan]:
    """Returns the models of a zoo; a victim's base stands before it.

    Raises:
        SettingError: there is no such zoo.
    """
    if name not in ZOOS:
        raise SettingError(f"unknown zoo {one_line(name)}; use {', '.join(ZOOS)}")
    return ZOOS[name](seed)
