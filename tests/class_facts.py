"""What the outlier tests are told of many classes, given as a list for each fact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tabor.verdict import ClassFacts, Decision, OutlierSettings, decide


def decide_on(scores: Sequence[float | None], outliers: OutlierSettings, **lists: Sequence[Any] | None) -> Decision:
    """Applies the tests; a fact that is not given, or None, is what `ClassFacts` takes it for."""
    given = {name: values for name, values in lists.items() if values is not None}
    each = (dict(zip(given, values, strict=True)) for values in zip(*given.values(), strict=True))
    facts = list(each) if given else [{}] * len(scores)
    return decide([ClassFacts(score=s, **fact) for s, fact in zip(scores, facts, strict=True)], outliers)
