"""How far the champion's nights lie from its training rows, as the metrics table has it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from support.publishing import DAY, Warehouse

from pipeline.adapters import metrics, triggers
from pipeline.monitoring.metrics import Metric
from pipeline.partition import Partition
from pipeline.run import Run

pytestmark = pytest.mark.integration

DAYS = [Partition(DAY.day + timedelta(days=number)) for number in range(5)]


def measured(warehouse: Warehouse, run: Run, **bits: float) -> Run:
    found = [Metric("feature", name, "js", "training", value) for name, value in bits.items()]
    others = [
        Metric("feature", "amount", "js", "rolling", 0.9),
        Metric("feature", "amount", "psi", "training", 0.9),
        Metric("input", "amount", "js", "training", 0.9),
    ]
    with warehouse.engine.begin() as connection:
        metrics.replace(connection, run, [*found, *others])
    return run


def distances(
    warehouse: Warehouse, after: Partition = DAYS[0], nights: int = 7, version: int = 1
) -> dict[str, list[float]]:
    with warehouse.engine.connect() as connection:
        return triggers.distances(connection, "toy", version, after.day, nights)


def test_each_feature_has_the_newest_nights_after_the_training_in_order(warehouse: Warehouse) -> None:
    for number, day in enumerate(DAYS):
        kind = {"kind": 0.5} if number == 3 else {}
        measured(warehouse, warehouse.published(day), amount=number / 10, **kind)
    assert distances(warehouse) == {"amount": [0.1, 0.2, 0.3, 0.4], "kind": [0.5]}
    assert distances(warehouse, nights=3) == {"amount": [0.2, 0.3, 0.4], "kind": [0.5]}
    assert distances(warehouse, nights=1) == {"amount": [0.4]}
    assert distances(warehouse, after=DAYS[-1]) == {}


def test_only_what_readers_see_and_that_version_has_answered_counts(warehouse: Warehouse) -> None:
    measured(warehouse, warehouse.published(DAYS[1]), amount=0.1)
    measured(warehouse, warehouse.published(DAYS[1]), amount=0.2)
    of_another = measured(warehouse, warehouse.published(DAYS[2]), amount=0.7)
    warehouse.execute("update nightshift.runs set model_version = 2 where run_no = %s", of_another.run_no)
    assert distances(warehouse) == {"amount": [0.2]}
    assert distances(warehouse, version=2) == {"amount": [0.7]}
