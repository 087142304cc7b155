"""What clean models look like: the law of the largest value that any of their classes reaches.

A threshold for *one* class, applied to the most extreme of many, flags clean models as a rule.  So the law is that of a
clean model's largest value (an anomaly index of a mask, or of a patch), which follows Gumbel's law of extremes and is
fitted to scans of clean models.

How many classes a model has plays no part.  With more of them the highest lead is higher, but so is the next, which it
is held against: of n values with an exponential tail the two largest lie as far apart whatever n is (Rényi's
representation); of values with a lighter tail they come nearer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import CensoredData, gumbel_r

from tabor.errors import SettingError

CERTAINTY = 0.99
"""No probability is nearer to 0 or 1: so few models were seen that no more can be claimed."""


@dataclass(frozen=True, kw_only=True)
class Null:
    """The law of a clean model's largest value.

    Attributes:
        location: Gumbel's location.
        scale: Gumbel's scale, positive.
        planted: values of planted backdoors are taken to lie anywhere between 0 and this: nothing is known of the
            attacker.
        source: on what it was fitted, in words.
        share: the share of clean models that have such a value at all, in (0, 1].

    Raises:
        SettingError: the scale, the range of planted values or the share is not positive, or the share is above 1.
    """

    location: float
    scale: float
    planted: float
    source: str
    share: float = 1.0

    def __post_init__(self) -> None:
        positive = 0 < self.scale < math.inf and 0 < self.planted < math.inf
        if not positive or not math.isfinite(self.location) or not 0 < self.share <= 1:
            raise SettingError(f"a null distribution needs positive numbers, got {self}")

    def p_value(self, value: float) -> float:
        """Returns the chance that a clean model reaches this value."""
        return self.share * float(gumbel_r.sf(value, self.location, self.scale))

    def threshold(self, false_alarm_rate: float) -> float:
        """Returns the value that a clean model exceeds with that chance.

        Not below 0, from where on planted values lie, even where fewer clean models than that have a value at all.
        """
        rate = min(false_alarm_rate / self.share, 1.0)
        return max(0.0, float(gumbel_r.isf(rate, self.location, self.scale)))

    def probability(self, value: float) -> float:
        """Returns the chance that the model is backdoored, if half of all models are (Bayes' rule), in [0.01, 0.99].

        The largest value of a backdoored model is taken to lie anywhere between 0 and `planted`; that of a clean one
        follows this law.  Below the law's mode nothing speaks more for a backdoor than at the mode; and that there is a
        value at all speaks for none, as it depends on the data more than on backdoors.
        """
        clean = gumbel_r.logpdf(max(value, self.location), self.location, self.scale)
        planted = -math.log(self.planted)
        return float(np.clip(1 / (1 + np.exp(np.clip(clean - planted, -50, 50))), 1 - CERTAINTY, CERTAINTY))


def fit_null(largest: Sequence[float], planted: float, source: str) -> Null:
    """Fits the law to the largest values of clean models, by maximum likelihood.

    Only the upper half counts by its values: of the others it is taken to be known that they lie below the median.
    What decides is the upper tail, and a network that nothing fools at all should not make it wider.

    Raises:
        SettingError: there are fewer than 3 models, or they are all alike.
    """
    if len(largest) < 3 or max(largest) - min(largest) < 1e-9:
        raise SettingError(f"a null distribution needs at least 3 clean models that differ, got {len(largest)}")
    values = np.asarray(largest, dtype=np.float64)
    middle = float(np.sort(values)[len(values) // 2])  # one of them: a median between two would count as an upper one
    upper = values[values >= middle]
    location, scale = gumbel_r.fit(CensoredData(uncensored=upper, left=np.full(len(values) - len(upper), middle)))
    return Null(location=float(location), scale=float(scale), planted=planted, source=source)
