"""Seeding: what is drawn inside depends on the seed alone, and every device's generator is as it was afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

from tabor.draws import seeded

from .closed_form import CPU


@pytest.mark.parametrize("fails", [False, True])
def test_draws_depend_on_the_seed_and_leave_no_trace(fails: bool) -> None:
    before, drawn = torch.get_rng_state(), []
    for seed in (3, 3, 4):
        try:
            with seeded(seed, CPU):
                drawn.append(torch.rand(5))
                if fails:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], torch.rand(5, generator=Generator().manual_seed(3)))
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize(
    ("device", "expected"),
    [("cpu", [7, 8, 9]), ("cuda:1", [7, 3, 9]), ("mps", [7, 8, 3])],
    ids=str,
)
def test_of_other_devices_that_one_alone_is_seeded(
    device: str, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [Generator().manual_seed(seed) for seed in (7, 8, 9)]  # of two graphics cards of NVIDIA's, and of Apple's
    monkeypatch.setattr(torch.cuda, "default_generators", tuple(others[:2]))
    monkeypatch.setattr(torch.mps, "_get_default_mps_generator", lambda: others[2])
    before = [generator.get_state() for generator in others]
    with seeded(3, torch.device(device)):
        assert [generator.initial_seed() for generator in others] == expected
        assert torch.initial_seed() == 3
    assert all(torch.equal(g.get_state(), state) for g, state in zip(others, before, strict=True))
