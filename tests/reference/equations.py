"""The paper's equations once more: plain Python, one loop a sum, no torch.

An image is a nested list [channel][row][column]; a mask has one channel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Image = list[list[list[float]]]
Model = Callable[[Image], list[float]]


def _pixelwise(image: Image, mask: Image, rule: Callable[[float, float], float]) -> Image:
    return [
        [[rule(image[c][i][j], mask[0][i][j]) for j in range(len(image[c][i]))] for i in range(len(image[c]))]
        for c in range(len(image))
    ]


def stamp(image: Image, mask: Image, pattern: Image) -> Image:
    """Eq. 1."""
    cropped, alone = crop(image, mask), isolate(mask, pattern)
    return [
        [[cropped[c][i][j] + alone[c][i][j] for j in range(len(image[c][i]))] for i in range(len(image[c]))]
        for c in range(len(image))
    ]


def crop(image: Image, mask: Image) -> Image:
    """The image in Eq. 4."""
    return _pixelwise(image, mask, lambda x, m: x * (1 - m))


def isolate(mask: Image, pattern: Image) -> Image:
    """The image in Eq. 7."""
    return _pixelwise(pattern, mask, lambda p, m: p * m)


def outside(mask: Image, pattern: Image) -> Image:
    """Δ' in Eq. 2."""
    return _pixelwise(pattern, mask, lambda p, m: (1 - m) * p)


def elastic(values: Image) -> float:
    """R_elastic: the sum of the L1 and the L2 norm."""
    l1 = squares = 0.0
    for channel in values:
        for row in channel:
            for value in row:
                l1 += abs(value)
                squares += value * value
    return l1 + math.sqrt(squares)


def smoothness(values: Image) -> float:
    """s(·), Eq. 3."""
    total = 0.0
    for channel in values:
        for i, row in enumerate(channel):
            for j, value in enumerate(row):
                if j + 1 < len(row):
                    total += (value - row[j + 1]) ** 2
                if i + 1 < len(channel):
                    total += (value - channel[i + 1][j]) ** 2
    return total


def cross_entropy(logits: Sequence[float], label: int) -> float:
    """L."""
    return math.log(sum(math.exp(value) for value in logits)) - logits[label]


def regularisers(
    model: Model, images: list[Image], labels: list[int], target: int, mask: Image, pattern: Image, lambdas: list[float]
) -> list[float]:
    """R1 to R4 of Eq. 11 for one class; R3 is the mean over the images given."""
    beyond = outside(mask, pattern)
    blocked = 0.0
    for image, label in zip(images, labels, strict=True):
        blocked += cross_entropy(model(crop(image, mask)), label) / len(images)
    return [
        lambdas[0] * elastic(mask) + lambdas[1] * elastic(beyond),
        lambdas[2] * smoothness(mask) + lambdas[3] * smoothness(beyond),
        lambdas[4] * blocked,
        lambdas[5] * cross_entropy(model(isolate(mask, pattern)), target),
    ]


def attack(
    model: Model, images: list[Image], target: int, mask: Image, pattern: Image, kept: list[Image] | None
) -> tuple[float, float]:
    """The mean of L(f(x_t), y_t) of Eq. 1, and the share of images that the trigger sends to the target."""
    loss = reached = 0.0
    for b, image in enumerate(images):
        in_force = mask if kept is None else _pixelwise(kept[b], mask, lambda keep, m: keep * m)
        logits = model(stamp(image, in_force, pattern))
        loss += cross_entropy(logits, target) / len(images)
        reached += (max(range(len(logits)), key=lambda k: logits[k]) == target) / len(images)
    return loss, reached


def quality(mask: Image, pattern: Image, attacked: float, cropped: float, explained: float) -> float:
    """A(M, Δ) of Eq. 8 for a d×d image."""
    alone, d = isolate(mask, pattern), len(mask[0])
    shape = [[float(any(round(255 * c[i][j]) > 0 for c in alone)) for j in range(d)] for i in range(d)]
    covered = sum(sum(row) for row in shape)
    return (
        math.log(covered / d**2)
        + math.log(smoothness([shape]) / (d * (d - 1)))
        - math.log(attacked)
        - math.log(cropped)
        - math.log(explained)
    )


def augmented(
    factor: float, successes: list[float], phi: float, m: float, smallest: float, largest: float
) -> list[float]:
    """The factor on all λ after each round of §4.3."""
    factors = []
    for success in successes:
        factor = factor * m if success >= phi else factor / m
        factor = min(max(factor, smallest), largest)
        factors.append(factor)
    return factors


def cleanse_costs(
    successes: list[float], *, threshold: float, initial: float, up: float, down: float, patience: int
) -> list[float]:
    """Neural Cleanse's weight after each round: up after `patience` good rounds, down after as many bad ones."""
    cost, good, bad, costs = 0.0, 0, 0, []
    for success in successes:
        if success >= threshold:
            good, bad = good + 1, 0
        else:
            good, bad = 0, bad + 1
        if good == patience:
            cost, good = (initial if cost == 0 else cost * up), 0
        elif bad == patience:
            cost, bad = cost / down, 0
        costs.append(cost)
    return costs
