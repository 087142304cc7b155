"""What stands before a network: images in [0, 1] become what it was trained with.  Triggers stay in pixel space."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tabor.models.build import Architecture


class Prepared(nn.Module):
    """A network behind its preprocessing: the order of the channels, their range, and their normalisation."""

    def __init__(self, network: nn.Module, architecture: Architecture) -> None:
        super().__init__()
        self.network = network
        self.bgr = architecture.bgr
        # (low + x·(high − low) − mean) / std as one multiplication and one addition.
        low, high = architecture.value_range
        mean = torch.tensor(architecture.mean or (0.0,), dtype=torch.float64)
        std = torch.tensor(architecture.std or (1.0,), dtype=torch.float64)
        self.register_buffer("gain", ((high - low) / std).float().view(1, -1, 1, 1), persistent=False)
        self.register_buffer("shift", ((low - mean) / std).float().view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the network's answer to images (N, C, H, W) in [0, 1]."""
        ordered = images.flip(1) if self.bgr else images
        answer: Tensor = self.network(ordered * self.get_buffer("gain") + self.get_buffer("shift"))
        return answer


def prepared(network: nn.Module, architecture: Architecture) -> nn.Module:
    """Returns a model that takes images in [0, 1]: the network itself where it takes them as they are."""
    as_it_is = architecture.mean is None and not architecture.bgr and architecture.value_range == (0, 1)
    return network if as_it_is else Prepared(network, architecture)
