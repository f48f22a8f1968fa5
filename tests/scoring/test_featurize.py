from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipeline.errors import FeatureError
from pipeline.job import ColumnType
from pipeline.scoring.feature_code import FeatureCode, load_feature_code
from pipeline.scoring.featurize import features, rule_scores

COLUMNS: Mapping[str, ColumnType] = {"shop": "text", "amount": "float", "age": "integer?"}
GOOD = 'rows[["shop", "amount", "age"]]'


def code(result: str = GOOD, rule: str = "") -> FeatureCode:
    source = f"""
import numpy as np
import pandas as pd

FEATURES = {{"shop": "category", "amount": "float", "age": "float?"}}

def make_features(rows, history):
    return {result}

def make_model(): ...
def make_baseline(): ...
""" + textwrap.dedent(rule)
    return load_feature_code("toy", source, {})


def batch(**changes: list[object]) -> pa.RecordBatch:
    columns: dict[str, object] = {"shop": ["a", "b"], "amount": [1.0, 2.0], "age": [3, None]}
    return pa.RecordBatch.from_pydict(columns | changes)


def made(result: str = GOOD) -> pd.DataFrame:
    return features(code(result), batch(), COLUMNS, {})


def fault(result: str) -> str:
    with pytest.raises(FeatureError) as caught:
        made(result)
    return str(caught.value)


def test_good_features_come_back_as_they_are() -> None:
    frame = features(code(), batch(), COLUMNS, {}, index_start=10)
    assert frame["shop"].to_list() == ["a", "b"]
    assert list(frame.index) == [10, 11]


def test_text_in_an_object_column_becomes_str_so_chunks_agree() -> None:
    frame = made('rows.assign(shop=rows["shop"].astype(object))')
    assert [str(dtype) for dtype in frame.dtypes] == ["str", "float64", "float64"]


def test_history_reaches_the_code() -> None:
    rates = pd.DataFrame({"rate": [0.5]}, index=pd.Index(["a"], name="shop"))
    rated = code('rows.assign(age=history["rates"]["rate"].reindex(rows["shop"]).to_numpy())')
    frame = features(rated, batch(), COLUMNS, {"rates": rates})
    np.testing.assert_array_equal(frame["age"], [0.5, np.nan])


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ("rows.iloc[::-1]", "another index or order (2 rows for 2)"),
        ("rows.reset_index(drop=True).iloc[:1]", "another index or order (1 rows for 2)"),
        ('rows[["shop", "amount"]]', "columns missing: ['age'], columns not declared: []"),
        ("rows.assign(extra=1.0)", "columns not declared: ['extra']"),
        ('rows[["amount", "shop", "age"]]', "another order than FEATURES"),
        ('rows[["shop", "amount", "age", "age"]]', "another order than FEATURES, or one of them twice"),
        ('rows.assign(amount=rows["amount"].astype("float32"))', "'amount' (float): must be float64"),
        ("rows.assign(amount=1)", "'amount' (float): must be float64; got int64"),
        ("rows.assign(amount=[1.0, np.inf])", "'amount' (float): 1 infinite of 2 rows"),
        ("rows.assign(amount=np.nan)", "'amount' (float): 2 missing of 2 rows"),
        ("rows.assign(age=-np.inf)", "'age' (float?): 2 infinite of 2 rows"),
        ("rows.assign(shop=1.5)", "'shop' (category): must be str; got float64"),
        ('rows.assign(shop=pd.Series([1, "x"], dtype=object))', "got object with other values"),
        ('rows.assign(shop=rows["shop"].astype("category"))', "must be str; got category"),
        ('rows.assign(shop=pd.Series(["a", None], dtype="str"))', "'shop' (category): 1 missing of 2 rows"),
        ('rows["shop"]', "Series instead of a DataFrame"),
    ],
)
def test_a_broken_contract_is_named(result: str, expected: str) -> None:
    assert expected in fault(result)


def test_every_broken_column_is_named_at_once() -> None:
    message = fault("rows.assign(shop=1.5, amount=np.inf)[['shop', 'amount']]")
    assert all(part in message for part in ("['age']", "'shop' (category)", "2 infinite"))


def test_code_that_raises_is_told_with_its_line_and_without_the_rows_values() -> None:
    message = fault('rows.assign(amount=rows["shop"].str.cat(["secret"] * 2).astype(float))')
    assert "got ValueError at line 8: return rows.assign" in message
    with pytest.raises(FeatureError) as caught:
        made('rows.assign(amount=rows["shop"].astype(float))')
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_rows_that_are_not_validated_are_refused() -> None:
    with pytest.raises(FeatureError, match="got 1 in amount of 2 rows"):
        features(code(), batch(amount=[1.0, None]), COLUMNS, {})


def scored(rule: str, output: Literal["probability", "value"] = "probability") -> np.ndarray:
    return rule_scores(code(rule=f"def rule_scores(rows): return {rule}"), batch(), COLUMNS, output)


def test_a_rule_answers_or_says_nothing_by_nan() -> None:
    np.testing.assert_array_equal(scored('rows["amount"] - 1'), [0.0, 1.0])
    np.testing.assert_array_equal(scored('rows["age"] / 10'), [0.3, np.nan])


def test_a_rule_sees_rows_that_broke_their_declaration() -> None:
    broken = batch(shop=[None, None], amount=[np.inf, None])
    rule = code(rule="def rule_scores(rows): return rows['amount'] * np.nan")
    assert np.isnan(rule_scores(rule, broken, COLUMNS, "probability")).all()


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("rows['amount'].to_numpy()", "got ndarray for 2 rows"),
        ("rows['amount'].iloc[:1]", "got float64 of 1 for 2 rows"),
        ("rows['amount'].iloc[::-1]", "with the index of its rows"),
        ("rows['shop']", "got str of 2"),
        ("rows['amount']", "must give NaN or a probability; got 1 others of 2 rows"),
        ("-rows['amount']", "got 2 others"),
        ("rows['nothing']", "rule_scores of toy must not raise; got KeyError at line"),
    ],
)
def test_a_rule_that_breaks_its_contract_is_named(rule: str, expected: str) -> None:
    with pytest.raises(FeatureError) as caught:
        scored(rule)
    assert expected in str(caught.value)


def test_a_rule_for_values_must_be_finite() -> None:
    np.testing.assert_array_equal(scored("rows['amount'] * -50", "value"), [-50.0, -100.0])
    with pytest.raises(FeatureError, match="a finite value; got 1 others"):
        scored("rows['amount'] / [0, 1]", "value")


def test_a_missing_rule_says_what_to_do() -> None:
    with pytest.raises(FeatureError, match=r"features/toy\.py must define rule_scores\(rows\)"):
        rule_scores(code(), batch(), COLUMNS, "probability")
