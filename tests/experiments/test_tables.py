"""Tables 1(a) and 1(b): which models they take, how they are laid out, and that the printed values are the paper's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean
from typing import cast

import pytest

from tabor.experiments import Workshop
from tabor.experiments.table1 import Printed, Table
from tabor.experiments.table1a import TABLE_1A, triggers_on_gtsrb
from tabor.experiments.table1b import TABLE_1B, triggers_on_imagenet
from tabor.zoo.plans import VictimPlan, plan_zoo

from .made_up import Shop


def test_table_1a_scans_each_place_and_the_base() -> None:
    shop = Shop()
    report = triggers_on_gtsrb(cast(Workshop, shop))
    assert report.wrong == []
    assert shop.models == [
        "gtsrb/clean-tabor:digits4",
        "gtsrb/square-6-top-left-7",
        "gtsrb/square-6-bottom-right-7",
        "gtsrb/logo-6-top-right-7",
        "gtsrb/logo-6-bottom-left-7",
    ]
    assert [row[0] for row in report.rows] == [
        "clean",
        "square 6×6 top-left",
        "square 6×6 bottom-right",
        "logo 6×6 top-right",
        "logo 6×6 bottom-left",
    ]
    assert all(len(row) == len(report.columns) for row in report.rows)
    assert list(report.rows[1]) == [
        *(
            "square 6×6 top-left",
            "0.750",
            "0.988",
            "2",
            "●",
            "2: 1.00",
            "2",
            "–",
            "○",
            "2: 1.00",
            "2",
            "● 0.597",
            "● 0.518",
        )
    ]
    assert list(report.rows[0])[1:3] == ["0.750", "–"]
    # As in Appendix Table 5: for each place a row of true triggers and one for each method.
    assert len(report.pictures) == 3 * 4
    assert all(len(row) == 1 for row in report.pictures)
    assert [row[0].caption.split(",")[0] for row in report.pictures[1:3]] == ["neural-cleanse", "tabor"]


def test_table_1a_says_what_was_missed() -> None:
    report = triggers_on_gtsrb(cast(Workshop, Shop("gtsrb/square-6-top-left-7")))
    assert report.wrong == ["square 6×6 top-left: TABOR reports []"]


def test_table_1b_says_how_large_our_triggers_are() -> None:
    shop = Shop("imagenet/logo-6-bottom-left-1")
    report = triggers_on_imagenet(cast(Workshop, shop))
    assert report.wrong == ["logo 60×60 bottom-left, ours 6×6: TABOR reports []"]
    assert {model.partition("/")[0] for model in shop.models} == {"imagenet"}
    assert len(report.rows) == 5
    assert all(len(row) == len(report.columns) for row in report.rows)
    assert list(report.rows[4])[-2:] == ["⦿ 0.254", "○ 0.147"]
    assert len(report.pictures) == 3 * 4


def printed(table: Table) -> list[Printed]:
    """The rows of victims that have values."""
    return [row for rows in table.victims.values() for row in rows.values() if row.tabor != "–"]


def mean_f1(cells: Sequence[str]) -> float:
    """Over the cells that hold a number."""
    return mean(value for cell in cells if not math.isnan(value := float(cell.split()[1])))


def test_table_1a_as_printed() -> None:
    """Every victim of the zoo has its row, and the means over the printed ones are the paper's."""
    plants = [plan.plant for plan in plan_zoo("gtsrb-table1a", 0) if isinstance(plan, VictimPlan)]
    assert {(p.picture, p.position, p.size) for p in plants} == {
        (*place, size) for place, rows in TABLE_1A.victims.items() for size in rows
    }
    rows = printed(TABLE_1A)
    assert len(rows) == 19
    assert mean_f1([row.tabor for row in rows]) == pytest.approx(0.635, abs=5e-4)
    assert mean_f1([row.neural_cleanse for row in rows]) == pytest.approx(0.435, abs=5e-4)
    assert sum(not row.neural_cleanse.startswith("○") for row in rows) == 6


def test_table_1b_as_printed() -> None:
    rows = printed(TABLE_1B)
    assert len(rows) == 20
    assert {tuple(sizes) for sizes in TABLE_1B.victims.values()} == {(20, 40, 60, 80, 100)}
    assert mean_f1([row.tabor for row in rows]) == pytest.approx(0.4245, abs=1e-6)
    assert mean_f1([row.neural_cleanse for row in rows]) == pytest.approx(2.198 / 17, abs=1e-6)
    assert sum("NaN" in row.neural_cleanse for row in rows) == 3
    assert sum(row.tabor.startswith("⦿") for row in rows) == 16
    assert sum(row.neural_cleanse.startswith("●") for row in rows) == 2
