"""The metrics table: written whole for a run, and read for the days that readers see."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pandas as pd
import psycopg
import pytest
from support.publishing import DAY, Warehouse

from pipeline.adapters import metrics
from pipeline.monitoring.metrics import Metric
from pipeline.partition import Partition
from pipeline.run import Run

pytestmark = pytest.mark.integration

MEAN = Metric("input", "amount", "mean", "none", 2.5)
DRIFT = Metric("feature", "tab\tand\\slash", "js", "rolling", 1e-300)


def written(warehouse: Warehouse, run: Run, *found: Metric) -> None:
    with warehouse.engine.begin() as connection:
        metrics.replace(connection, run, found)


def read(warehouse: Warehouse, first: Partition = DAY, last: Partition = DAY) -> pd.DataFrame:
    with warehouse.engine.connect() as connection:
        return metrics.of_visible_runs(connection, "toy", first, last)


def test_metrics_of_a_run_come_back_as_they_were(warehouse: Warehouse) -> None:
    run = warehouse.published()
    written(warehouse, run, MEAN, DRIFT)
    found = read(warehouse)
    lead = (run.run_no, run.run_id, "toy", DAY.day)
    assert list(found.itertuples(index=False, name=None)) == [
        (*lead, "feature", "tab\tand\\slash", "js", "rolling", 1e-300),
        (*lead, "input", "amount", "mean", "none", 2.5),
    ]


def test_metrics_computed_again_take_the_place_of_the_former(warehouse: Warehouse) -> None:
    run = warehouse.published()
    written(warehouse, run, MEAN, DRIFT)
    written(warehouse, run, replace(MEAN, value=3.0))
    assert read(warehouse)["value"].tolist() == [3.0]


def test_estimates_of_a_run_stay_when_its_metrics_are_computed_again(warehouse: Warehouse) -> None:
    run = warehouse.published()
    values = "(%s, %s, 'toy', %s, 'estimate', 'estimate', 'auc', 'none', 0.7)"
    warehouse.execute(f"insert into nightshift.metrics values {values}", run.run_no, run.run_id, DAY.day)
    written(warehouse, run, MEAN)
    assert read(warehouse)["part"].tolist() == ["estimate", "input"]


def test_a_write_that_fails_leaves_the_former_metrics(warehouse: Warehouse) -> None:
    run = warehouse.published()
    written(warehouse, run, MEAN)
    with pytest.raises(psycopg.errors.UniqueViolation):
        written(warehouse, run, DRIFT, DRIFT)
    assert read(warehouse)["metric"].tolist() == ["mean"]


def test_only_the_run_that_readers_see_counts_for_a_day(warehouse: Warehouse) -> None:
    first = warehouse.published()
    written(warehouse, first, MEAN)
    second = warehouse.published()
    assert read(warehouse).empty
    written(warehouse, second, replace(MEAN, value=9.0))
    assert read(warehouse)["run_no"].tolist() == [second.run_no]


def test_days_are_read_from_the_first_to_the_last(warehouse: Warehouse) -> None:
    days = [Partition(date(2024, 1, day)) for day in (24, 25, 26, 27)]
    for day in days:
        written(warehouse, warehouse.published(day), MEAN)
    assert read(warehouse, days[1], days[2])["day"].tolist() == [days[1].day, days[2].day]


def test_analysts_may_read_metrics(warehouse: Warehouse) -> None:
    allowed = "select has_table_privilege('nightshift_analyst', 'nightshift.metrics', %s)"
    assert [warehouse.query(allowed, right) for right in ("select", "insert")] == [[(True,)], [(False,)]]
