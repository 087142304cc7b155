"""How far scores lie out: robust estimates of their spread, and the anomaly index.  [§4.2.4]"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

MAD_TO_SIGMA = 1.4826
"""Makes the median absolute deviation of normal data an estimate of their standard deviation (1/Φ⁻¹(3/4))."""

QN_TO_SIGMA = 2.2191
"""The same for Qn (1/(√2·Φ⁻¹(5/8)))."""

QN_OF_FEW = {2: 0.399, 3: 0.994, 4: 0.512, 5: 0.844, 6: 0.611, 7: 0.857, 8: 0.669, 9: 0.872}
"""What Qn of so few values must be multiplied by besides.  [Croux and Rousseeuw 1992, Table 1]"""

FEW_CLASSES = 8
"""Below this, the classes' own spread says little: see `anomaly_indices`."""

LARGEST_INDEX = 1e6
"""Stands for infinity, which JSON cannot say."""

Values = NDArray[np.float64]


def mad(values: Values) -> float:
    """Returns 1.4826·MAD of some values; 0 of none.

    Of normal values it is as noisy as the standard deviation of 37 % of them.
    """
    return MAD_TO_SIGMA * float(np.median(np.abs(values - np.median(values)))) if len(values) else 0.0


def qn(values: Values) -> float:
    """Returns Qn of some values: the lower quarter of the distances of all pairs; 0 of fewer than two.

    It takes as many wild values to spoil it as it does with the MAD, a half, but of normal ones it is as noisy as the
    standard deviation of 82 % of them.  [Rousseeuw and Croux 1993]
    """
    count = len(values)
    if count < 2:
        return 0.0
    half = count // 2 + 1
    rank = half * (half - 1) // 2
    distance = float(np.partition(pdist(values[:, None], "cityblock"), rank - 1)[rank - 1])
    correction = QN_OF_FEW.get(count, count / (count + (1.4 if count % 2 else 3.8)))
    return QN_TO_SIGMA * correction * distance


SPREADS: dict[str, Callable[[Values], float]] = {"mad": mad, "qn": qn}


def anomaly_indices(
    scores: Sequence[float],
    spread_floor: float,
    peers: Sequence[bool] | None = None,
    estimate: Callable[[Values], float] = mad,
) -> list[float]:
    """Returns how many robust standard deviations each score lies below the peers' median; negative above it.

    Peers are those scores that are there whatever their values; None: all are.  With at least 8 of them the deviation
    is the estimate, not less than the floor.  With fewer, an infected class drags the median and the estimate with it,
    so each score is held against the median and the estimate of the *others*, and as that median is noisy itself, the
    deviation is that of the difference.  A deviation of 0 makes any smaller score as anomalous as can be; with fewer
    than 8 peers it says nothing, and every index is 0.
    """
    values = np.asarray(scores, dtype=np.float64)
    peer = np.ones(len(values), dtype=bool) if peers is None or not any(peers) else np.asarray(peers, dtype=bool)
    few = int(peer.sum()) < FEW_CLASSES
    against = [values[_without(peer, k)] for k in range(len(values))] if few else [values[peer]]
    centre = np.array([np.median(others) for others in against])
    spread = np.maximum([estimate(others) for others in against], spread_floor)
    if few:
        spread = spread * [math.sqrt(1 + _median_variance(len(others))) for others in against]
    below = centre - values
    endless = 0.0 if few else LARGEST_INDEX
    with np.errstate(divide="ignore", invalid="ignore"):
        indices = np.where(spread > 0, below / spread, np.sign(below) * endless)
    return [float(index) for index in np.clip(indices, -LARGEST_INDEX, LARGEST_INDEX)]


def _median_variance(count: int) -> float:
    """The variance of the median of so many normal values of variance 1; of more than two about π/2 by their number."""
    return (1 if count <= 2 else math.pi / 2) / max(count, 1)


def _without(peer: NDArray[np.bool_], k: int) -> NDArray[np.bool_]:
    """The peers but one, unless it is the only one."""
    others = peer.copy()
    others[k] = False
    return others if others.any() else peer
