"""Named settings: what `--preset` and `--method` mean."""

from __future__ import annotations

import dataclasses

from tabor.errors import SettingError, one_line
from tabor.methods.base import Method
from tabor.methods.neural_cleanse import CostSettings, NeuralCleanse
from tabor.methods.tabor import Lambdas, Tabor
from tabor.schedule import AugmentationSettings
from tabor.screening import Screening
from tabor.solver import SolverSettings

METHODS: dict[str, type[Tabor] | type[NeuralCleanse]] = {"tabor": Tabor, "neural-cleanse": NeuralCleanse}
STANDARD = SolverSettings(steps=500, smallest_steps=300, screening=Screening())
FAST = SolverSettings(steps=300, smallest_steps=200, screening=Screening(steps=60, closest=4, others=12))
THOROUGH = SolverSettings()
"""Every class to the end."""

SOLVERS = {"fast": FAST, "standard": STANDARD, "thorough": THOROUGH}
PRESETS = (*SOLVERS, "paper")

EPOCHS = 500
PIXEL_SCALE = 255.0
PAPER_BATCH = 32
"""The paper gives none; 32 is what the public code of Neural Cleanse takes."""

TABLE_3 = Lambdas(
    mask_size=1e-6,
    pattern_size=1e-5 * PIXEL_SCALE,
    mask_smoothness=1e-7,
    pattern_smoothness=1e-8 * PIXEL_SCALE**2,
    crop=1e-6,
    explanation=1e-2,
)
"""Appendix B, Table 3, for GTSRB.  The paper's patterns lie in 0…255 and ours in 0…1: a norm of Δ' is 255 times
smaller here and a squared difference 255² times, so λ2 and λ4 are that much larger."""


def choose(method: str | Method, preset: str, images: int) -> tuple[Method, SolverSettings]:
    """Returns the method and the solver settings that the names stand for.

    Args:
        method: "tabor" or "neural-cleanse"; or a method of one's own, which is returned with the solver settings of the
            one that has its name, or TABOR's.
        preset: "standard" (the default), "fast" (fewer steps, and fewer classes to the end), "thorough" (all classes to
            the end), or "paper" (Appendix B: 500 epochs of all images, or 250 for a class that is stable by then, Adam
            with rate 1e-3, the λ of Table 3 for GTSRB, Eq. 8 at its word, flagged above 2; the baseline by the
            constants of its public code).
        images: how many images the search has, which is an epoch.

    Raises:
        SettingError: a name is unknown.
    """
    if not isinstance(method, str):
        return method, choose(method.name if method.name in METHODS else "tabor", preset, images)[1]
    if method not in METHODS:
        raise SettingError(f"unknown method {one_line(method)}; use {' or '.join(METHODS)}")
    if preset == "paper":
        return _paper(images) if method == "tabor" else _original(images)
    if preset not in SOLVERS:
        raise SettingError(f"unknown preset {one_line(preset)}; use {', '.join(PRESETS)}")
    solver = SOLVERS[preset]
    if method == "neural-cleanse":
        solver = dataclasses.replace(solver, screening=None)  # the baseline compares all classes
    return METHODS[method](), solver


def _original(images: int) -> tuple[Method, SolverSettings]:
    """Neural Cleanse by the constants of its public code, for as many epochs."""
    cost = CostSettings(patience=5, success=0.99)
    # Its rate of 0.1 before (tanh + 1)/2 is one of 0.2 before the sigmoid, which is the same curve.
    solver = dataclasses.replace(_epochs(images), learning_rate=0.2, betas=(0.5, 0.9), success=cost.success)
    return NeuralCleanse(cost=cost), solver


def _paper(images: int) -> tuple[Method, SolverSettings]:
    method = Tabor(
        lambdas=TABLE_3,
        augmentation=AugmentationSettings(initial=1.0, step=1.5, smallest=1e-3, largest=1e6),
        crop_share=1.0,
        mask_dropout=0.0,
        image_shift=0.0,
        quality="paper",
        restoring=None,
        outliers=NeuralCleanse().outliers,
    )
    return method, dataclasses.replace(_epochs(images), learning_rate=1e-3, betas=(0.9, 0.999), clipped=True)


def _epochs(images: int) -> SolverSettings:
    batch = min(PAPER_BATCH, images)
    epoch = -(-images // batch)
    return SolverSettings(
        steps=EPOCHS * epoch,
        batch_size=batch,
        round_steps=epoch,
        smallest_steps=EPOCHS * epoch // 2,
    )
