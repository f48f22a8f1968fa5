"""Tests of a challenger's answers, each with a model that breaks it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import FatalError, ModelError
from pipeline.job_life import Behaviour
from pipeline.probe import behaviour_tests, check_behaviour, robustness_tests
from pipeline.scoring.feature_code import FeatureCode, FeatureType

SCHEMA: dict[str, FeatureType] = {"price": "float", "age": "float?", "shop": "category"}
CODE = FeatureCode("toy", "", {}, "f-1", SCHEMA, ModuleType("toy"))
FRAME = pd.DataFrame(
    {
        "price": np.linspace(0, 9, 10),
        "age": [np.nan, *range(9)],
        "shop": pd.Series(["a", "b"] * 5, dtype="str"),
    }
)


def broken(model: Any, **declared: Any) -> dict[str, tuple[int, int]]:
    """Rows and broken rows by test."""
    found = behaviour_tests(model, FRAME, Behaviour(**declared))
    return {test.name: (test.rows, test.broken) for test in found}


def price(frame: pd.DataFrame) -> Any:
    return frame["price"].to_numpy()


def test_a_score_that_rises_with_a_column_does_not_fall_with_it() -> None:
    assert broken(price, rising=("price",)) == {"price rising": (10, 0)}
    assert broken(price, falling=("price",)) == {"price falling": (10, 10)}


def test_a_direction_is_broken_by_the_rows_that_break_it() -> None:
    peak = broken(lambda frame: -np.abs(frame["price"].to_numpy() - 4.5), rising=("price",))
    assert 0 < peak["price rising"][1] < 10


def test_rows_without_the_column_say_nothing_of_its_direction() -> None:
    falling = broken(lambda frame: -frame["age"].fillna(0).to_numpy(), rising=("age",))
    assert falling == {"age rising": (9, 9)}


def test_a_score_that_does_not_see_a_column_is_invariant_in_it() -> None:
    assert broken(price, invariant=("shop",)) == {"shop invariant": (4, 0)}
    seen = broken(lambda frame: (frame["shop"] == "a").to_numpy().astype(float), invariant=("shop",))
    assert seen["shop invariant"][1] > 0


@pytest.mark.parametrize(
    ("fails_on", "name"),
    [
        (lambda frame: frame["age"].isna().all(), "every optional input missing"),
        (lambda frame: (frame["price"] > 1e9).any(), "every number 1e+12"),
        (lambda frame: (frame["price"] < -1e9).any(), "every number -1e+12"),
        (lambda frame: (frame["price"] == 0).all(), "every number 0"),
        (lambda frame: ~frame["shop"].isin(["a", "b"]).any(), "every category unseen"),
    ],
)
def test_a_model_that_fails_on_strange_inputs_is_told_by_which(fails_on: Any, name: str) -> None:
    def model(frame: pd.DataFrame) -> Any:
        if fails_on(frame):
            raise ModelError("no")
        return frame["price"].to_numpy()

    found = list(robustness_tests(model, CODE, FRAME))
    assert [test.name for test in found if test.broken] == [name]
    assert len(found) == 5


def test_declared_columns_must_be_features_that_can_do_so() -> None:
    check_behaviour(CODE, Behaviour(rising=("price",), invariant=("shop",)), 1)
    with pytest.raises(
        FatalError, match=r"'shop' must be a number; .*'shap' must be a feature; did you mean 'shop'"
    ):
        check_behaviour(CODE, Behaviour(rising=("shop",), invariant=("shap",)), 1)


def fails_above(limit: float) -> Any:
    """A model that has no answer where a price is higher."""

    def model(frame: pd.DataFrame) -> Any:
        if (frame["price"] > limit).any():
            raise ModelError("no")
        return frame["price"].to_numpy()

    return model


def test_a_model_that_fails_on_moved_rows_breaks_the_test_and_the_others_go_on() -> None:
    found = broken(fails_above(9.5), rising=("price",), invariant=("shop",))
    assert found == {"price rising": (10, 10), "shop invariant": (4, 0)}


def test_a_column_with_a_single_value_rises_too() -> None:
    def model(frame: pd.DataFrame) -> Any:
        return frame["price"].fillna(-1).to_numpy()

    (test,) = behaviour_tests(model, FRAME.tail(1), Behaviour(rising=("price",)))
    assert (test.rows, test.broken) == (1, 0)


def test_a_column_that_the_first_rows_share_is_still_swapped() -> None:
    """A source in the order of its shops: its first thousand rows have one and the same."""
    ordered = pd.DataFrame(
        {"price": np.zeros(4000), "shop": pd.Series(["a"] * 2000 + ["b"] * 2000, dtype="str")}
    )
    (test,) = behaviour_tests(
        lambda frame: (frame["shop"] == "a").to_numpy().astype(float), ordered, Behaviour(invariant=("shop",))
    )
    assert test.rows == test.broken > 300


def test_rows_that_got_an_equal_value_say_nothing_of_its_invariance() -> None:
    frame = FRAME.assign(shop=pd.Series(["a"] * 9 + ["b"], dtype="str"))
    (seen,) = behaviour_tests(
        lambda frame: (frame["shop"] == "b").to_numpy().astype(float), frame, Behaviour(invariant=("shop",))
    )
    assert seen.rows == seen.broken == 2
    (alike,) = behaviour_tests(price, FRAME.assign(shop="a"), Behaviour(invariant=("shop",)))
    assert (alike.rows, alike.broken) == (0, 0)
