"""Figures 6 and 10 and Tables 4 to 6: which models they take, and how they are laid out."""

from __future__ import annotations

import dataclasses
from typing import cast

from tabor.backdoor import Backdoor
from tabor.experiments import Report, Workshop
from tabor.experiments.figure6 import incorrect, incorrect_triggers
from tabor.experiments.figure10 import other_settings
from tabor.experiments.outcome import Outcome
from tabor.experiments.table1a import triggers_on_gtsrb
from tabor.experiments.table1b import triggers_on_imagenet
from tabor.experiments.tables4_6 import restored_triggers

from .made_up import Shop, result, trigger

FACE = "faces/trojaned-square-6-bottom-right-7"


def laid_out_well(report: Report) -> bool:
    """Whether all rows have their cells and their values, and nothing is wrong."""
    cells = all(len(row) == len(report.columns) for row in report.rows)
    return cells and len(report.rows) == len(report.figures) and report.wrong == []


def test_the_incorrect_triggers_have_the_largest_index_of_the_other_classes() -> None:
    outcome = Outcome([Backdoor(trigger(2), 2)], result(2))
    assert [finding.index for finding in incorrect(outcome)] == [1, 0]
    first, second, third = outcome.result.classes
    unknown = dataclasses.replace(second, anomaly_index=None)
    other = dataclasses.replace(outcome.result, classes=(first, unknown, third))
    assert [finding.index for finding in incorrect(dataclasses.replace(outcome, result=other))] == [0, 1]


def test_figure_6_shows_true_restored_and_incorrect_triggers() -> None:
    shop = Shop()
    report = incorrect_triggers(cast(Workshop, shop))
    assert laid_out_well(report)
    assert list(report.rows[0])[-2:] == ["2: 2.00", "1: 1.00, 0: 0.00"]
    assert report.figures[0]["incorrect"] == [{"class": 1, "anomaly_index": 1.0}, {"class": 0, "anomaly_index": 0.0}]
    # Four places and two methods.
    assert len(report.pictures) == 4 * 2
    assert [shown.caption for shown in report.pictures[1][1:]] == [
        "neural-cleanse, class 2",
        "incorrect, class 1",
        "incorrect, class 0",
    ]
    table = Shop()
    triggers_on_imagenet(cast(Workshop, table))
    assert set(shop.models) < set(table.models)


def test_figure_6_says_what_was_missed() -> None:
    report = incorrect_triggers(cast(Workshop, Shop("imagenet/square-6-top-left-1")))
    assert report.wrong == ["square 60×60 top-left, ours 6×6: TABOR reports []"]


def test_figure_10_takes_a_victim_of_each_setting() -> None:
    shop = Shop()
    report = other_settings(cast(Workshop, shop))
    assert laid_out_well(report)
    assert shop.models == [
        "gtsrb/tabor:digits4-square-6-bottom-right-7",
        "imagenet/tabor:digits4-logo-6-top-right-1",
        FACE,
    ]
    assert [list(row[:2]) for row in report.rows[3:5]] == [
        ["imagenet: tabor:digits4, BadNet", "neural-cleanse"],
        ["faces: tabor:digits4, Trojan Attack", "tabor"],
    ]
    assert [len(row) for row in report.pictures] == [3, 3, 3]
    assert len(report.stand_ins) == 3


def test_figure_10_says_what_was_missed() -> None:
    assert other_settings(cast(Workshop, Shop(FACE))).wrong == ["faces: tabor:digits4, Trojan Attack: TABOR reports []"]


def test_tables_4_to_6_take_the_models_of_the_others() -> None:
    shop, others = Shop(), Shop()
    report = restored_triggers(cast(Workshop, shop))
    assert laid_out_well(report)
    # A face, and four places of one size each for both halves of Table 1; a row for each method.
    assert [row[0] for row in report.rows] == ["Table 4"] * 2 + ["Table 5"] * 8 + ["Table 6"] * 8
    assert len(report.pictures) == 3 * (1 + 4 + 4)
    assert [row[0].caption.split(",")[0] for row in report.pictures[1:3]] == ["neural-cleanse", "tabor"]
    for experiment in (triggers_on_gtsrb, triggers_on_imagenet, other_settings):
        experiment(cast(Workshop, others))
    assert set(shop.models) < set(others.models)


def test_tables_4_to_6_say_what_was_missed() -> None:
    report = restored_triggers(cast(Workshop, Shop("gtsrb/square-6-top-left-7")))
    assert report.wrong == ["Table 5, square 6×6 top-left: TABOR reports []"]
