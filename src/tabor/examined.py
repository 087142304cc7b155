"""What was found for each class, before anything is concluded, and which classes that flags."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from tabor.class_finding import ClassStatus
from tabor.evidence import Evidence
from tabor.methods.base import Method
from tabor.solver import Candidate
from tabor.suspect import Suspect
from tabor.trigger import Trigger
from tabor.verdict import ClassFacts, Decision, decide


@dataclass(frozen=True)
class Examined:
    """What was found for each class before anything is concluded; the lists run along the classes searched.

    Attributes:
        candidates: how each class's search ended.
        evidence: what was measured on its trigger.
        scores: the trigger's quality; None where none works or the class was not searched to the end.
        suspects: the classes that were looked at closely.
        peers: classes that were searched to the end whatever their masks: what the others are held against.
        mask_effects: classes whose small mask was found to be an effect of another class's trigger, with that class.
        settled: classes that stood out until the trigger that they are an effect of was unlearned.
    """

    candidates: list[Candidate]
    evidence: list[Evidence]
    scores: list[float | None]
    suspects: dict[int, Suspect]
    peers: Collection[int]
    mask_effects: Mapping[int, int] = field(default_factory=dict)
    settled: Collection[int] = ()

    @property
    def causes(self) -> dict[int, int]:
        """The classes that are taken for an effect of another class's trigger, with that class."""
        by_patch = {k: of for k, suspect in self.suspects.items() if (of := suspect.effect_of) is not None}
        return by_patch | dict(self.mask_effects)

    def decide(self, method: Method) -> Decision:
        """Applies the method's tests.

        A class is not flagged by its small mask where its patch, or the mask, is a part or an effect of a flagged
        class's trigger.
        """
        decision = self._decide(method, effects=())
        effects = {target for target, of in self.causes.items() if of in self.flagged(decision)}
        return self._decide(method, effects) if effects & set(self.flagged(decision)) else decision

    def _decide(self, method: Method, effects: Collection[int]) -> Decision:
        facts = [
            ClassFacts(
                score=score,
                mask_l1=evidence.mask_l1,
                finished=candidate.status is ClassStatus.CONVERGED,
                confirmed=evidence.works and candidate.target not in effects,
                patch=s.anomaly_index if (s := self.suspects.get(candidate.target)) else None,
                screened=candidate.status is ClassStatus.SCREENED,
                peer=candidate.target in self.peers,
            )
            for candidate, evidence, score in zip(self.candidates, self.evidence, self.scores, strict=True)
        ]
        return decide(facts, method.outliers)

    def by_mask(self, decision: Decision) -> set[int]:
        """Returns the classes whose small mask stands out and works, whether or not they are flagged by it."""
        indices, small = decision.anomaly_indices, decision.far_smaller
        above = {k for k, index in enumerate(indices) if index is not None and index > decision.threshold}
        return {self.candidates[k].target for k in above & small if self.evidence[k].works}

    def by_patch(self, decision: Decision) -> set[int]:
        """Returns the classes whose patch stands out, whether or not they are flagged by it."""
        threshold = decision.patch_threshold
        if threshold is None:
            return set()
        return {k for k, s in self.suspects.items() if s.own_index is not None and s.own_index > threshold}

    def flagged(self, decision: Decision) -> tuple[int, ...]:
        """Returns the classes that a decision flags, most anomalous first."""
        return tuple(self.candidates[k].target for k in decision.targets)

    def explained_away(self, decision: Decision) -> dict[int, int]:
        """Returns the classes that would be flagged, were they not taken for an effect of a flagged one, with that."""
        flagged, standing_out = self.flagged(decision), self.by_mask(decision) | self.by_patch(decision)
        causes = sorted(self.causes.items())
        return {k: of for k, of in causes if of in flagged and k in standing_out and k not in flagged}

    def mask(self, target: int) -> Trigger:
        """Returns the smallest trigger found for a class."""
        return next(c.trigger for c in self.candidates if c.target == target)

    def restored(self, target: int) -> list[Trigger]:
        """Returns what was restored of a class's trigger, the smallest mask and the whole patch, as far as it works."""
        masks = {c.target: c.trigger for c, e in zip(self.candidates, self.evidence, strict=True) if e.works}
        return [found[target] for found in (masks, self.patches([target])) if target in found]

    def patches(self, flagged: Sequence[int]) -> dict[int, Trigger]:
        """Returns the whole triggers of the flagged classes, where one says something."""
        found = {target: self.suspects[target] for target in flagged if target in self.suspects}
        height, width = self.candidates[0].trigger.mask.shape[1:]
        return {target: s.patch.trigger(height, width).to("cpu") for target, s in found.items() if s.tells}
