"""A trigger to plant, as zoos and experiments name it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tabor.attacks.badnet import plan_backdoors
from tabor.attacks.poison import WHITE, shade
from tabor.backdoor import Backdoor
from tabor.models import Architecture
from tabor.position import Position

LOGO = "logo"
"""Stands for the picture that the caller gives; the paper's is the Firefox logo."""


@dataclass(frozen=True)
class Plant:
    """A trigger to plant, for one target.

    Attributes:
        picture: "square" or "logo".
        size: edge in pixels.
        position: where it sits.
        target: the class it sends images to.
        colour: of a square, one value or one a channel, in [0, 1].
    """

    picture: str
    size: int
    position: Position
    target: int
    colour: Sequence[float] = WHITE

    @property
    def name(self) -> str:
        """For files."""
        return f"{self.picture}{shade(self.colour)}-{self.size}-{self.position}-{self.target}"

    def backdoor(self, architecture: Architecture, picture: str | None) -> Backdoor:
        """Returns it for a model of that architecture.

        Args:
            architecture: whose images it is stamped on.
            picture: the file that stands for the logo.

        Raises:
            SettingError: see `plan_backdoors`.
        """
        (backdoor,) = plan_backdoors(
            [str(picture) if self.picture == LOGO else self.picture],
            [self.size],
            [self.position],
            [self.target],
            architecture.image_shape,
            architecture.num_classes,
            self.colour,
        )
        return backdoor
