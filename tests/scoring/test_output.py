"""Prediction rows: the same rows in the same order, nulls where nothing is known, the unanswered left out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.publishing import DAY, make_job, make_run

from pipeline.job import Job
from pipeline.scoring.output import Prediction, assemble, dictionary_columns, parquet_schema, sql_schema

JOB, RUN = make_job(key={"kind": "text", "id": "integer"}), make_run(run_no=12)
AT = datetime(2024, 1, 25, 3, 0, 0, 5, UTC)
Row = tuple[float | None, str, int | None, int | None]


def assembled(answers: Sequence[Row], job: Job = JOB, first: int = 0) -> Prediction:
    """Rows with ids from 0 and positions from `first`, answered by (score, source, age, version)."""
    ids = range(len(answers))
    rows = pa.RecordBatch.from_pydict(
        {
            "day": pa.nulls(len(ids), pa.date32()),
            "id": pa.array(ids, pa.int64()),
            "kind": [f"k{n}" for n in ids],
        }
    )
    types = {
        "score": pa.float64(),
        "score_source": pa.string(),
        "score_age_days": pa.int32(),
        "model_version": pa.int32(),
    }
    columns = {
        name: pa.array([row[place] for row in answers], kind)
        for place, (name, kind) in enumerate(types.items())
    }
    return assemble(job, RUN, rows, np.arange(first, first + len(ids), dtype=np.int64), columns, AT)


FRESH: Row = (0.7, "champion", None, 3)
CARRIED: Row = (0.2, "carried_forward", 5, 2)
RULE: Row = (0.0, "rule", None, None)
NOBODY: Row = (None, "default", None, None)


def test_each_sink_gets_its_columns_in_order() -> None:
    prediction = assembled([FRESH])
    assert ["day", *prediction.parquet.schema.names] == [
        "day",
        *(n for n in JOB.output_columns() if n != "day"),
    ]
    assert prediction.sql.schema.names == [
        "day", "run_no", "kind", "id", "score", "decision", "score_source", "score_age_days", "arm",
        "model_version", "scored_at",
    ]  # fmt: skip
    assert prediction.parquet.schema == parquet_schema(JOB)
    assert prediction.sql.schema == sql_schema(JOB)


def test_the_day_is_not_inside_the_file_whose_folder_tells_it() -> None:
    assert "day" not in parquet_schema(JOB).names
    assert assembled([FRESH]).sql["day"].to_pylist() == [DAY.day]


def test_a_row_tells_its_origin() -> None:
    (row,) = assembled([CARRIED]).parquet.to_pylist()
    assert row == {
        "kind": "k0", "id": 0, "score": 0.2, "decision": False, "score_source": "carried_forward",
        "score_age_days": 5, "arm": None, "model_version": 2, "run_id": "run-1", "scored_at": AT,
    }  # fmt: skip
    assert assembled([CARRIED]).sql["run_no"].to_pylist() == [12]


def test_what_is_not_known_is_null() -> None:
    (row,) = assembled([RULE]).parquet.to_pylist()
    assert (row["score_age_days"], row["model_version"], row["arm"]) == (None, None, None)
    assert row["score"] == 0.0


@pytest.mark.parametrize(("score", "decision"), [(0.5, True), (np.nextafter(0.5, 0), False), (1.0, True)])
def test_the_threshold_itself_is_a_yes(score: float, decision: bool) -> None:
    prediction = assembled([(float(score), "champion", None, 1)])
    assert prediction.parquet["decision"].to_pylist() == [decision]


def test_a_job_without_a_threshold_decides_nothing() -> None:
    model = JOB.declaration.model.model_copy(update={"output": "value", "threshold": None})
    job = JOB.model_copy(update={"declaration": JOB.declaration.model_copy(update={"model": model})})
    assert assembled([FRESH, RULE], job).parquet["decision"].to_pylist() == [None, None]


def test_rows_that_nobody_answered_are_left_out_and_reported_by_position() -> None:
    prediction = assembled([NOBODY, FRESH, NOBODY, RULE], first=100)
    assert prediction.parquet["id"].to_pylist() == prediction.sql["id"].to_pylist() == [1, 3]
    assert prediction.unanswered["row"].to_pylist() == [100, 102]
    assert prediction.unanswered["key"].to_pylist() == ['{"kind":"k0","id":0}', '{"kind":"k2","id":2}']


@pytest.mark.parametrize("answers", [[], [NOBODY, NOBODY]], ids=["no rows", "no answers"])
def test_a_batch_without_answers_keeps_its_columns(answers: list[Row]) -> None:
    prediction = assembled(answers)
    assert (prediction.parquet.num_rows, prediction.sql.num_rows) == (0, 0)
    assert prediction.parquet.schema == parquet_schema(JOB)
    assert prediction.unanswered.num_rows == len(answers)


def test_columns_of_few_values_are_columns_of_the_file() -> None:
    assert set(dictionary_columns(JOB)) <= set(parquet_schema(JOB).names)
    assert "kind" in dictionary_columns(JOB)
    assert not {"id", "score"} & set(dictionary_columns(JOB))


_SCORE = st.one_of(st.none(), st.floats(0, 1))
_ROW = st.tuples(
    _SCORE,
    st.sampled_from(["champion", "rule", "default"]),
    st.one_of(st.none(), st.integers(0, 99)),
    st.one_of(st.none(), st.integers(1, 99)),
)


@given(st.lists(_ROW, max_size=12), st.integers(0, 2**40))
def test_every_row_is_answered_in_its_place_or_reported(answers: list[Row], first: int) -> None:
    prediction = assembled(answers, first=first)
    answered = [place for place, row in enumerate(answers) if row[0] is not None]
    assert prediction.parquet["id"].to_pylist() == answered
    assert sorted([first + place for place in answered] + prediction.unanswered["row"].to_pylist()) == [
        first + place for place in range(len(answers))
    ]
    for row, place in zip(prediction.parquet.to_pylist(), answered, strict=True):
        score, source, age, version = answers[place]
        assert score is not None
        assert (row["score"], row["score_source"], row["kind"]) == (score, source, f"k{place}")
        assert (row["score_age_days"], row["model_version"]) == (age, version)
        assert row["decision"] is (score >= 0.5)
    shared = [name for name in prediction.sql.schema.names if name not in ("day", "run_no")]
    assert prediction.sql.select(shared).equals(prediction.parquet.select(shared))
