from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabor.anomaly import LARGEST_INDEX, anomaly_indices
from tabor.calibration import Null
from tabor.errors import SettingError
from tabor.methods.neural_cleanse import NeuralCleanse
from tabor.methods.tabor import Tabor
from tabor.result import Verdict
from tabor.verdict import Decision, OutlierSettings

from .class_facts import decide_on

ABOVE_2 = OutlierSettings(threshold=2.0)
OF_3 = (1 + math.pi / 6) ** 0.5
FALSE_ALARM_DRAWS = 1000
EVEN = [10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 16.0, 17.0, 18.0]  # median 14, MAD 2


@pytest.mark.parametrize(
    ("scores", "floor", "expected"),
    [
        pytest.param(EVEN, 0.0, [k / (2 * 1.4826) for k in range(4, -5, -1)], id="median 14, MAD 2"),
        pytest.param(EVEN, 4.0, [k / 4 for k in range(4, -5, -1)], id="the floor is wider"),
        pytest.param(EVEN, 2.9, [k / (2 * 1.4826) for k in range(4, -5, -1)], id="the MAD is wider"),
        # Median 2.5, deviations 2.5 1.5 .5 .5 .5 .5 1.5 97.5, their median 1.
        pytest.param(
            [0.0, 1, 2, 2, 3, 3, 4, 100], 0.0, [d / 1.4826 for d in (2.5, 1.5, 0.5, 0.5, -0.5, -0.5, -1.5, -97.5)],
            id="eight scores"),
        pytest.param([5.0] * 8, 0.0, [0.0] * 8, id="all the same"),
        pytest.param([1.0, *[5.0] * 6, 9.0], 0.0, [LARGEST_INDEX, *[0.0] * 6, -LARGEST_INDEX], id="MAD of 0"),
        pytest.param([1.0, *[5.0] * 6, 9.0], 0.5, [8.0, *[0.0] * 6, -8.0], id="MAD of 0 and a floor"),
        # Each against the others: medians 12, 12, 10, 10, and MADs 2, 2, 4, 2; the median of three adds π/6.
        pytest.param([1.0, 10, 12, 14], 2.0, [d / 1.4826 / OF_3 for d in (5.5, 1.0, -0.5, -2.0)], id="four scores"),
        pytest.param(
            [1.0, 10, 12, 14], 5.5, [d / OF_3 for d in (2.0, 2 / 5.5, -2 / 5.93040, -4 / 5.5)],
            id="four scores and a floor"),
        pytest.param([3.0, 7.0], 2.0, [2.0 / 2**0.5, -2.0 / 2**0.5], id="two scores"),
        pytest.param([3.0], 2.0, [0.0], id="one score"),
        pytest.param([], 2.0, [], id="no score"),
    ],
)  # fmt: skip
def test_anomaly_indices_by_hand(scores: list[float], floor: float, expected: list[float]) -> None:
    assert anomaly_indices(scores, floor) == pytest.approx(expected)


@pytest.mark.parametrize("classes", [3, 4, 5, 6, 7, 43])
def test_clean_models_of_few_classes_raise_no_more_false_alarms_than_promised(classes: int) -> None:
    """Scores as spread as the floor says: the case the promise is made for."""
    outliers, generator = OutlierSettings(spread_floor=0.75, false_alarm_rate=0.05), np.random.default_rng(0)
    alarms = sum(
        bool(decide_on(list(generator.normal(0, 0.75, classes)), outliers).targets) for _ in range(FALSE_ALARM_DRAWS)
    )
    assert 0 < alarms < 0.07 * FALSE_ALARM_DRAWS  # three standard deviations above


def test_two_classes_are_undecided_whatever_their_masks_say_but_not_what_a_patch_does() -> None:
    outliers = OutlierSettings(spread_floor=0.75, patches=Null(location=1.0, scale=1.0, planted=60.0, source="toys"))
    apart = decide_on([-9.0, 9.0], outliers)
    assert (apart.verdict, apart.targets, apart.score, apart.p_value) == (Verdict.UNDECIDED, (), 0.5, None)
    assert decide_on([-9.0, 9.0], outliers, patch=[None, 30.0]).targets == (1,)
    assert decide_on([-9.0, 9.0, 9.5], outliers).targets == (0,)


@pytest.mark.parametrize(
    ("first", "share", "flagged"),
    [
        pytest.param(4.0, None, True, id="whatever its size"),
        pytest.param(2.0, 0.5, True, id="half of the median"),
        pytest.param(2.1, 0.5, False, id="more than half of it"),
        pytest.param(2.1, 0.6, True, id="another share"),
    ],
)
def test_a_score_flags_a_class_only_where_its_mask_is_far_smaller_than_the_others(
    first: float, share: float | None, flagged: bool
) -> None:
    scores, sizes = [-20.0, *(0.1 * k for k in range(11))], [first, *[1.0] * 3, *[4.0] * 3, *[9.0] * 5]
    outliers = OutlierSettings(spread_floor=0.75, mask_share=share)
    decision = decide_on(scores, outliers, mask_l1=sizes)
    assert decision.targets == ((0,) if flagged else ())
    assert (0 in decision.far_smaller) is flagged
    assert (decision.score > 0.5) is flagged
    assert decision.score >= 0.5  # what its score says is not forgotten


def test_where_no_mask_is_far_smaller_what_their_scores_say_is_evidence_all_the_same() -> None:
    scores, outliers = [-1.0, *(0.1 * k for k in range(11))], OutlierSettings(spread_floor=0.75, mask_share=0.5)
    alike, without = (
        decide_on(scores, outliers, mask_l1=[4.0] * 12),
        decide_on(scores, OutlierSettings(spread_floor=0.75)),
    )
    assert alike.far_smaller == frozenset()
    assert (alike.score, alike.p_value) == (without.score, without.p_value)
    assert alike.score < 0.5


def test_masks_are_held_against_those_that_are_there_whatever_their_size() -> None:
    """Those that went on for their small masks would pull the median down."""
    scores, sizes = [-20.0, *(0.1 * k for k in range(11))], [2.0, *[1.0] * 6, *[4.0] * 5]
    outliers = OutlierSettings(spread_floor=0.75, mask_share=0.5)
    peer = [*[False] * 7, *[True] * 5]
    assert decide_on(scores, outliers, mask_l1=sizes).targets == ()
    assert decide_on(scores, outliers, mask_l1=sizes, peer=peer).targets == (0,)
    assert decide_on(scores, outliers, mask_l1=sizes, peer=[False] * 12).targets == ()


def test_an_index_is_never_infinite() -> None:
    assert anomaly_indices([-1e9, *[0.0] * 8], 1e-9)[0] == LARGEST_INDEX


@pytest.mark.parametrize("classes", [1, 2, 10, 43, 1000])
def test_the_threshold_shares_the_false_alarm_rate_among_the_classes(classes: int) -> None:
    expected = NormalDist().inv_cdf(1 - 0.01 / classes)
    assert OutlierSettings(false_alarm_rate=0.01).threshold_for(classes) == pytest.approx(expected)
    assert OutlierSettings(false_alarm_rate=0.01, threshold=2.0).threshold_for(classes) == 2.0


def test_the_threshold_grows_with_the_number_of_classes() -> None:
    thresholds = [OutlierSettings().threshold_for(n) for n in (2, 5, 10, 43, 200, 1000)]
    assert thresholds == sorted(set(thresholds))


SMALL, LARGE = [2.0, *EVEN], [30.0, *EVEN]  # 2 lies 11.5 below the median of 13.5, of MAD 2.5: index 3.1


@pytest.mark.parametrize(
    ("scores", "outliers", "finished", "confirmed", "verdict", "targets"),
    [
        pytest.param(EVEN, ABOVE_2, None, None, "clean", (), id="nothing stands out"),
        pytest.param(SMALL, ABOVE_2, None, None, "backdoored", (0,), id="one is small"),
        pytest.param(LARGE, ABOVE_2, None, None, "clean", (), id="large is not suspicious"),
        pytest.param([-2.0, 0.0, *EVEN, 15.0], ABOVE_2, None, None, "backdoored", (0, 1), id="two, the worse first"),
        pytest.param([0.0, -2.0, *EVEN, 15.0], ABOVE_2, None, None, "backdoored", (1, 0), id="two, the worse last"),
        pytest.param(SMALL, OutlierSettings(threshold=3.2), None, None, "clean", (), id="below the threshold"),
        pytest.param(SMALL, OutlierSettings(threshold=2, spread_floor=6), None, None, "clean", (), id="wide floor"),
        pytest.param(SMALL, ABOVE_2, None, [False] + [True] * 9, "clean", (), id="not confirmed"),
        pytest.param(SMALL, ABOVE_2, None, [True] + [False] * 9, "backdoored", (0,), id="others not confirmed"),
        pytest.param([5.0] * 9, ABOVE_2, None, None, "clean", (), id="all the same"),
        pytest.param([4.9, *[5.0] * 9], ABOVE_2, None, None, "backdoored", (0,), id="MAD of 0"),
        pytest.param([], ABOVE_2, None, None, "undecided", (), id="no class"),
        pytest.param([None] * 9, ABOVE_2, None, None, "undecided", (), id="no score"),
        pytest.param([1.0, *[None] * 9], ABOVE_2, None, None, "undecided", (), id="one score"),
        pytest.param([5.0, 5.0, *[None] * 3], ABOVE_2, None, None, "undecided", (), id="fewer than half scored"),
        pytest.param([*SMALL, *[None] * 11], ABOVE_2, None, None, "undecided", (0,), id="few, though one is small"),
        pytest.param([*SMALL, *[None] * 10], ABOVE_2, None, None, "backdoored", (0,), id="just half scored"),
        pytest.param([math.nan, *EVEN], ABOVE_2, None, None, "clean", (), id="nan is no score"),
        pytest.param([*EVEN, None], ABOVE_2, None, None, "clean", (), id="a tenth without a trigger"),
        pytest.param([*EVEN, None, None], ABOVE_2, None, None, "undecided", (), id="more than a tenth without"),
        pytest.param(LARGE, ABOVE_2, [False] + [True] * 9, None, "clean", (), id="a tenth unfinished"),
        pytest.param(LARGE, ABOVE_2, [False] * 2 + [True] * 8, None, "undecided", (), id="more than a tenth"),
        pytest.param(SMALL, ABOVE_2, [False] * 10, None, "backdoored", (0,), id="a finding outweighs unfinished"),
        pytest.param(
            LARGE, OutlierSettings(undecided_share=0.2), [False] * 2 + [True] * 8, None, "clean", (), id="share"),
        pytest.param(
            [1.0, 10.0, 12.0, 14.0], OutlierSettings(threshold=2.9, spread_floor=2), None, None, "backdoored", (0,),
            id="few classes, above"),
        pytest.param(
            [1.0, 10.0, 12.0, 14.0], OutlierSettings(threshold=3.1, spread_floor=2), None, None, "clean", (),
            id="few classes, below"),
    ],
)  # fmt: skip
def test_decide(
    scores: list[float | None],
    outliers: OutlierSettings,
    finished: list[bool] | None,
    confirmed: list[bool] | None,
    verdict: str,
    targets: tuple[int, ...],
) -> None:
    decision = decide_on(scores, outliers, finished=finished, confirmed=confirmed)
    assert (decision.verdict, decision.targets) == (Verdict(verdict), targets)
    assert len(decision.anomaly_indices) == len(scores)
    assert [index is None for index in decision.anomaly_indices] == [
        score is None or math.isnan(score) for score in scores
    ]
    assert (decision.score > 0.5) == bool(targets)
    assert (decision.score < 0.5) == (verdict == "clean")


@pytest.mark.parametrize("scores", [[30.0, 31.0, 33.0, 36.0], [0.0, 1.0]], ids=["four", "two"])
def test_a_few_classes_of_unknown_spread_do_not_convict_each_other(scores: list[float]) -> None:
    """One class is always the smallest; with no spread to hold it against, that alone is no finding."""
    assert decide_on(scores, NeuralCleanse().outliers).verdict is not Verdict.BACKDOORED


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        pytest.param([1.0, None, None], r"only 1 of 3 classes", id="few scored"),
        pytest.param(SMALL, r"(1|one)\b.* class stands out .*\b10\b|1 of 10", id="one small"),
        pytest.param([-2.0, 0.0, *EVEN, 15.0], r"(2|two)\b.* classes stand out .*\b12\b|2 of 12", id="two small"),
        pytest.param([*EVEN, None, None], r"for 2 of 11 classes", id="unfinished"),
        pytest.param(EVEN, r"no class of 9 ", id="clean"),
    ],
)
def test_reasons_count_the_classes(scores: list[float | None], said: str) -> None:
    assert re.search(said, decide_on(scores, ABOVE_2).reason)


def decided(smallest: float, confirmed: Sequence[bool] | None = None) -> Decision:
    """Among nine scores of median 14 and MAD 2, the first at `smallest`, which lies below them."""
    return decide_on([smallest, *EVEN[1:]], OutlierSettings(threshold=2.0), confirmed=confirmed)


def test_the_score_is_a_half_at_the_threshold() -> None:
    at = decided(14 - 2 * 2 * 1.4826)
    assert at.score == pytest.approx(0.5)
    assert at.anomaly_indices[0] == pytest.approx(at.threshold)


def test_the_score_by_hand() -> None:
    # Index 3 and threshold 2: 1 / (1 + e^−1).
    assert decided(14 - 3 * 2 * 1.4826).score == pytest.approx(1 / (1 + math.exp(-1)))


@settings(max_examples=40)
@given(st.floats(-1e6, 10), st.floats(-1e6, 10))
def test_the_score_rises_as_the_smallest_trigger_shrinks(one: float, other: float) -> None:
    smaller, larger = sorted((one, other))
    assert 0 < decided(larger).score <= decided(smaller).score < 1


@pytest.mark.parametrize(("confirmed", "verdict"), [(5, Verdict.CLEAN), (4, Verdict.UNDECIDED), (0, Verdict.UNDECIDED)])
def test_no_model_is_called_clean_by_triggers_that_do_not_work(confirmed: int, verdict: Verdict) -> None:
    scores = [0.1 * k for k in range(10)]
    decision = decide_on(scores, OutlierSettings(spread_floor=0.75), confirmed=[k < confirmed for k in range(10)])
    assert decision.verdict is verdict
    told = f"only {confirmed} of 10 triggers work on images that the search did not see: give more images"
    assert (decision.reason == told) == (verdict is Verdict.UNDECIDED)


def test_a_trigger_without_a_score_does_not_stand_for_one_that_does_not_work() -> None:
    scores = [*(0.1 * k for k in range(10)), None]
    decision = decide_on(scores, OutlierSettings(spread_floor=0.75), confirmed=[k < 4 or k == 10 for k in range(11)])
    assert decision.reason.startswith("only 4 of 10 triggers work")


def test_a_class_that_is_not_confirmed_does_not_raise_the_score() -> None:
    without = decided(-100.0, confirmed=[False] + [True] * 8)
    assert without.anomaly_indices[0] == pytest.approx(114 / (2 * 1.4826))
    assert without.score == pytest.approx(1 / (1 + math.exp(2 - 3 / (2 * 1.4826))))  # that of 11, the next


@settings(max_examples=40)
@given(st.data())
def test_the_order_of_the_classes_does_not_matter(data: st.DataObject) -> None:
    scores = data.draw(st.lists(st.none() | st.integers(-30, 30).map(float), max_size=14, unique=True))
    order = data.draw(st.permutations(range(len(scores))))
    flags = st.lists(st.booleans(), min_size=len(scores), max_size=len(scores))
    finished, confirmed = data.draw(flags), data.draw(flags)
    outliers = OutlierSettings(threshold=1.0, spread_floor=data.draw(st.sampled_from([0.0, 1.0])))
    plain = decide_on(scores, outliers, finished=finished, confirmed=confirmed)
    shuffled = decide_on(
        [scores[k] for k in order],
        outliers,
        finished=[finished[k] for k in order],
        confirmed=[confirmed[k] for k in order],
    )
    assert shuffled.anomaly_indices == tuple(plain.anomaly_indices[k] for k in order)
    assert [plain.anomaly_indices[order[k]] for k in shuffled.targets] == [
        plain.anomaly_indices[k] for k in plain.targets
    ]
    assert {order[k] for k in shuffled.targets} == set(plain.targets)
    assert (shuffled.verdict, shuffled.score, shuffled.reason) == (plain.verdict, plain.score, plain.reason)


@settings(max_examples=40)
@given(st.lists(st.integers(-50, 50).map(float), min_size=8, max_size=12), st.integers(1, 8), st.integers(-20, 20))
def test_units_do_not_matter_where_there_is_no_floor(scores: list[float], factor: int, shift: int) -> None:
    moved = [factor * score + shift for score in scores]
    assert anomaly_indices(moved, 0.0) == pytest.approx(anomaly_indices(scores, 0.0))


def alarms(outliers: OutlierSettings, classes: int, models: int) -> float:
    scores = np.random.default_rng(11).normal(size=(models, classes))
    return sum(decide_on(list(row), outliers).verdict is Verdict.BACKDOORED for row in scores) / models


def test_false_alarms_are_about_as_rare_as_promised() -> None:
    assert alarms(OutlierSettings(false_alarm_rate=0.01, spread_floor=1.0), classes=43, models=800) <= 0.02


def test_false_alarms_where_the_spread_is_estimated() -> None:
    """The MAD of 43 scores is itself 12 % off, and 3.5 of them are passed five times as often as 3.5 σ."""
    assert alarms(OutlierSettings(false_alarm_rate=0.01), classes=43, models=800) <= 0.08


def test_false_alarms_follow_the_rate_asked_for() -> None:
    rate = alarms(OutlierSettings(false_alarm_rate=0.2, spread_floor=1.0), classes=5, models=800)
    assert 0.1 <= rate <= 0.3


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: OutlierSettings(false_alarm_rate=0.0), id="no alarm ever"),
        pytest.param(lambda: OutlierSettings(false_alarm_rate=1.0), id="always an alarm"),
        pytest.param(lambda: OutlierSettings(undecided_share=-0.1), id="negative share"),
        pytest.param(lambda: OutlierSettings(undecided_share=1.1), id="share above 1"),
        pytest.param(lambda: OutlierSettings(mask_share=0.0), id="no mask is small"),
        pytest.param(lambda: OutlierSettings(spread_floor=-1.0), id="negative floor"),
        pytest.param(lambda: OutlierSettings(spread_floor=math.nan), id="floor nan"),
        pytest.param(lambda: OutlierSettings(threshold=math.nan), id="threshold nan"),
    ],
)
def test_refuses_a_test_that_cannot_work(make: Callable[[], OutlierSettings]) -> None:
    with pytest.raises(SettingError, match="the outlier test needs"):
        make()


LAW = Null(location=4.0, scale=0.5, planted=15.0, source="made up")  # 6.65 once in 200 models


@pytest.mark.parametrize(
    ("index", "verdict", "targets"),
    [
        pytest.param(None, Verdict.CLEAN, (), id="says nothing"),
        pytest.param(6.0, Verdict.CLEAN, (), id="natural"),
        pytest.param(7.0, Verdict.BACKDOORED, (3,), id="more than natural"),
    ],
)
def test_a_patch_flags_its_class_where_clean_models_have_none_like_it(
    index: float | None, verdict: Verdict, targets: tuple[int, ...]
) -> None:
    outliers = OutlierSettings(patches=LAW, spread_floor=10.0)
    found = decide_on([float(k) for k in range(43)], outliers, patch=[index if k == 3 else None for k in range(43)])
    assert found.patch_threshold == pytest.approx(LAW.threshold(0.005))
    assert (found.verdict, found.targets) == (verdict, targets)
    if index is not None:
        assert found.p_value == pytest.approx(min(1, 2 * LAW.p_value(index)))


@pytest.mark.parametrize(("index", "patch"), [(3.5, None), (None, 6.5)])
def test_two_tests_were_made_though_one_had_nothing_to_say(index: float | None, patch: float | None) -> None:
    with_patches, without = OutlierSettings(patches=LAW), OutlierSettings()
    alone = without.p_value(index, None, 43) if patch is None else LAW.p_value(patch)
    assert alone is not None
    assert with_patches.p_value(index, patch, 43) == pytest.approx(2 * alone)


def test_what_is_just_at_its_threshold_flags_no_class() -> None:
    assert decide_on(EVEN, OutlierSettings(threshold=0.99, spread_floor=4.0)).targets == (0,)
    assert decide_on(EVEN, OutlierSettings(threshold=1.0, spread_floor=4.0)).targets == ()
    outliers = OutlierSettings(patches=LAW, spread_floor=10.0)
    scores = [float(k) for k in range(43)]
    assert decide_on(scores, outliers, patch=[outliers.patch_threshold, *[None] * 42]).targets == ()


def test_what_is_called_backdoored_is_not_called_more_likely_clean() -> None:
    """Where planted indices are spread wide, the densities still speak for a clean model just above the threshold."""
    wide = dataclasses.replace(LAW, planted=1000.0)
    outliers = OutlierSettings(patches=wide, spread_floor=10.0)
    just_above, just_below = LAW.threshold(0.005) + 0.01, LAW.threshold(0.005) - 0.01
    above, below = (
        decide_on([float(k) for k in range(43)], outliers, patch=[index, *[None] * 42])
        for index in (just_above, just_below)
    )
    assert wide.probability(just_above) < 0.3
    assert (above.verdict, above.score) == (Verdict.BACKDOORED, 0.5)
    assert (below.verdict, below.score < 0.3) == (Verdict.CLEAN, True)


def test_patches_count_for_nothing_without_a_law() -> None:
    found = decide_on([float(k) for k in range(43)], OutlierSettings(spread_floor=10.0), patch=[99.0] * 43)
    assert (found.verdict, found.patch_threshold) == (Verdict.CLEAN, None)


def test_the_reason_says_which_of_the_two_kinds_of_evidence_flags_how_many() -> None:
    small = [-30.0, *(0.1 * (k % 5) for k in range(42))]
    patch = [None, 99.0, *[None] * 41]
    law = OutlierSettings(patches=LAW)
    by_mask, by_patch = (
        "a trigger far smaller than the others need",
        "a patch that no other class answers to nearly as much",
    )
    assert decide_on(small, law, patch=[None] * 43).reason == f"one class stands out among 43 by {by_mask}"
    assert decide_on(small[1:], law, patch=patch[1:]).reason == f"one class stands out among 42 by {by_patch}"
    both = decide_on(small, law, patch=patch)
    assert set(both.targets) == {0, 1}
    assert both.reason == f"2 classes stand out among 43: 1 by {by_patch}, 1 by {by_mask}"


def test_a_patch_convicts_though_no_mask_works() -> None:
    found = decide_on([None] * 43, OutlierSettings(patches=LAW), patch=[99.0, *[None] * 42])
    assert (found.verdict, found.targets) == (Verdict.BACKDOORED, (0,))


def test_of_two_patches_the_stronger_one_counts_and_comes_first() -> None:
    scores = [float(k) for k in range(43)]
    found = decide_on(scores, OutlierSettings(patches=LAW, spread_floor=10.0), patch=[7.0, 8.0, *[None] * 41])
    assert found.targets == (1, 0)
    assert found.p_value == pytest.approx(2 * LAW.p_value(8.0))


def test_a_class_that_stands_out_by_both_comes_before_one_by_a_stronger_patch_alone() -> None:
    outliers = OutlierSettings(patches=LAW, spread_floor=10.0)
    found = decide_on([-100.0, *[0.0] * 42], outliers, patch=[8.0, 13.5, *[None] * 41])
    assert found.targets == (0, 1)


def test_the_stronger_evidence_makes_the_score() -> None:
    assert OutlierSettings(patches=LAW).probability(-9.0, 30.0, 3.5) == pytest.approx(0.99)


def test_classes_that_were_screened_out_count_for_the_p_value() -> None:
    settings = OutlierSettings(spread_floor=0.75)
    found = decide_on([*EVEN, *[None] * 34], settings, screened=[False] * 9 + [True] * 34)
    largest = max(index for index in found.anomaly_indices if index is not None)
    assert found.p_value == settings.p_value(largest, None, 43)


def test_the_default_test_is_the_one_of_the_documents() -> None:
    """Docs/method.md and docs/results/calibration.md."""
    outliers = Tabor().outliers
    assert (outliers.false_alarm_rate, outliers.spread_floor) == (0.02, 0.75)
    assert outliers.patch_threshold == pytest.approx(5.59, abs=0.01)
    assert outliers.threshold_for(43) == pytest.approx(3.5, abs=0.05)
