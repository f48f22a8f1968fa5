"""A rule in SQL: one number or null for each row, and nothing else that can be reached."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import FeatureError
from pipeline.job import ColumnType
from pipeline.scoring.boundary import REPLACEMENT, arrow_schema
from pipeline.scoring.sql_rule import sql_rule_faults, sql_rule_scores

COLUMNS: dict[str, ColumnType] = {
    "id": "integer", "kind": "text", "amount": "float", "sold": "boolean?", "at": "timestamp?",
}  # fmt: skip


def batch(kinds: list[str | None], amounts: list[float | None]) -> pa.RecordBatch:
    count = len(kinds)
    values = [list(range(count)), kinds, amounts, [None] * count, [None] * count]
    return pa.RecordBatch.from_arrays(
        [pa.array(column, field.type) for column, field in zip(values, arrow_schema(COLUMNS), strict=True)],
        schema=arrow_schema(COLUMNS),
    )


def scores(expression: str, rows: pa.RecordBatch) -> list[float | None]:
    found = sql_rule_scores("toy", expression, rows, COLUMNS, "probability")
    return [None if np.isnan(score) else float(score) for score in found]


def test_each_row_has_its_own_answer_in_the_order_of_the_rows() -> None:
    rows = batch(["ball", "doll", None, f"k{REPLACEMENT}te"], [10.0, None, float("nan"), -1.0])
    rule = "case kind when 'ball' then 0.75 when 'doll' then amount::float / 100 else 0.5 end"
    assert sql_rule_faults(rule, COLUMNS) == []
    assert scores(rule, rows) == [0.75, None, 0.5, 0.5]


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ("0.5) as a, (0.5", "one expression"),
        ("select max(amount) from rows", "query inside"),
        ("(select 0.5)", "query inside"),
        ("(select 0.5 from source.toy)", "query inside"),
        ("avg(amount)", "one row alone; got AVG"),
        ("row_number() over (order by id)", "one row alone"),
        ("mad(amount)", "one value for each row; got 1 for 2"),
        ("unnest(array[0.1, 0.2])", "one row alone|one value for each row"),
        ("colour * 0.5", "column 'colour' must be among"),
        ("extract(epoch from now())", "current_timestamp must not be used"),
        ("random()", "must not be used"),
        ("length(kind", "must be one SQL expression"),
        ("'high'", "must run over the columns"),
        ("no_such_function(amount)", "must run over the columns"),
        ("getenv('HOME')::float", "must run over the columns"),
    ],
)
def test_what_is_no_rule_over_one_row_is_refused(rule: str, fault: str) -> None:
    found = sql_rule_faults(rule, COLUMNS)
    assert found, rule
    assert re.search(fault, " ".join(found)), found


def test_files_cannot_be_reached_even_without_the_check(tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("score\n0.5\n")
    with pytest.raises(FeatureError, match="must not fail"):
        scores(f"(select max(score) from read_csv('{secret}'))", batch(["ball"], [1.0]))


@pytest.mark.parametrize(
    ("rule", "told"),
    [("amount", "got 1 others of 2 rows"), ("cast(kind as double)", "got ConversionException for 2 rows")],
)
def test_a_rule_that_fails_or_gives_no_probability_tells_so_without_values(rule: str, told: str) -> None:
    with pytest.raises(FeatureError, match=told) as raised:
        scores(rule, batch(["yoyo", "yoyo"], [0.5, 7.5]))
    assert "yoyo" not in str(raised.value)


@settings(max_examples=30)
@given(
    rows=st.lists(
        st.tuples(
            st.none() | st.text(st.characters(blacklist_categories=["Cs"]), max_size=5),
            st.none() | st.floats(),
        ),
        min_size=1,
        max_size=30,
    ),
    cut=st.integers(0, 30),
)
def test_a_row_has_the_same_answer_alone_and_among_others(
    rows: list[tuple[str | None, float | None]], cut: int
) -> None:
    rule = "case when amount between 0 and 1 then amount when kind > 'm' then 0.25 end"
    whole = batch([kind for kind, _ in rows], [amount for _, amount in rows])
    assert scores(rule, whole) == scores(rule, whole[:cut]) + scores(rule, whole[cut:])
