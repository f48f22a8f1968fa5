"""The toy project that the other tests stand on is sound itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.toy import Toy

pytestmark = pytest.mark.integration


def test_the_toy_night_is_published_whole_by_the_champion(toy: Toy) -> None:
    record = toy.night()
    assert (record["status"], record["degraded"]) == ("published", False)
    assert (record["rows_in"], record["rows_scored"]) == (200, 200)
    assert [row["id"] for row in toy.published()] == list(range(1, 201)) == toy.parquet()["id"].tolist()


def test_the_toy_model_is_better_than_its_baseline(toy: Toy) -> None:
    held = toy.version(1).metrics["holdout"]
    assert held["model"]["auc"] > held["baseline"]["auc"] + 0.1
