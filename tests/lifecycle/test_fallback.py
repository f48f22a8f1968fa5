from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import FatalError
from pipeline.lifecycle.fallback import SOURCES, Answer, Step, answer, carried_forward, default, rule


def rows(n: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"row": np.arange(n)})


def earlier(**columns: list[Any]) -> pa.Table:
    n = len(next(iter(columns.values())))
    filled = {"score_age_days": [1] * n, "model_version": [7] * n} | columns
    return pa.table({
        name: pa.array(values, pa.int32()) if name in ("score_age_days", "model_version") else values
        for name, values in filled.items()
    })  # fmt: skip


def told(answered: Answer) -> dict[str, list[Any]]:
    return {name: column.to_pylist() for name, column in answered.columns().items()}


def some(scores: Sequence[float | None]) -> Step:
    """A rule that knows the score of each row by its number."""
    known = np.array([np.nan if score is None else score for score in scores])
    return rule(lambda batch: known[batch.column("row").to_numpy()])


def test_a_row_without_an_answer_has_no_source_either() -> None:
    assert told(answer(rows(1), [])) == {
        "score": [None],
        "score_source": [None],
        "score_age_days": [None],
        "model_version": [None],
    }


def test_a_later_step_answers_only_what_is_left() -> None:
    answered = told(answer(rows(3), [some([None, 0.5, None]), default(0.2)]))
    assert answered["score"] == [0.2, 0.5, 0.2]
    assert answered["score_source"] == ["default", "rule", "default"]


def test_a_later_step_never_sees_an_answered_row() -> None:
    def careful(batch: pa.RecordBatch) -> Answer:
        assert batch.column("row").to_pylist() == [1]
        return default(0.1)(batch)

    answer(rows(2), [some([0.5, None]), careful])


def test_nothing_is_asked_when_nothing_is_left() -> None:
    def unreachable(batch: pa.RecordBatch) -> Answer:
        raise AssertionError(batch)

    assert answer(rows(2), [default(0.2), unreachable]).answered.all()
    assert answer(rows(0), [unreachable]).scores.shape == (0,)


def test_a_carried_score_tells_its_age_and_the_version_that_gave_it() -> None:
    step = carried_forward(
        earlier(shop=["a", "b"], score=[0.3, 0.4], score_age_days=[2, 5], model_version=[7, None]), ["shop"]
    )
    batch = pa.RecordBatch.from_pydict({"shop": ["b", "z", "a", None]})
    assert told(step(batch)) == {
        "score": [0.4, None, 0.3, None],
        "score_source": ["carried_forward", None, "carried_forward", None],
        "score_age_days": [5, None, 2, None],
        "model_version": [None, None, 7, None],
    }


def test_a_score_is_carried_by_all_columns_of_its_key_whatever_their_width() -> None:
    days = [date(2013, 5, 1), date(2013, 5, 2)]
    key = {"carrier": ["UA", "UA"], "flight": pa.array([1, 2], pa.int32()), "day": days}
    step = carried_forward(earlier(score=[0.1, 0.2], **key), ["carrier", "flight", "day"])
    batch = pa.RecordBatch.from_pydict(
        {"carrier": ["UA", "UA", "AA"], "flight": pa.array([2, 2, 2], pa.int64()), "day": [days[1], *days]}
    )
    assert told(step(batch))["score"] == [0.2, None, None]


def test_without_earlier_scores_nothing_is_carried() -> None:
    step = carried_forward(earlier(shop=["a"], score=[0.3]).slice(0, 0), ["shop"])
    assert not step(pa.RecordBatch.from_pydict({"shop": ["a"]})).answered.any()


def test_a_repeated_key_of_earlier_scores_is_refused() -> None:
    with pytest.raises(FatalError, match="one row per shop; got 1 repeated keys in 2 rows"):
        carried_forward(earlier(shop=["a", "a"], score=[0.3, 0.4]), ["shop"])


def test_answers_of_good_and_bad_rows_go_back_to_their_places() -> None:
    whole = Answer.none(3)
    whole = whole.put(np.array([0, 2]), Answer.of("champion", np.array([0.1, 0.3]), version=4))
    whole = whole.put(np.array([1]), default(0.2)(rows(1)))
    assert told(whole) == {
        "score": [0.1, 0.2, 0.3],
        "score_source": ["champion", "default", "champion"],
        "score_age_days": [None, None, None],
        "model_version": [4, None, 4],
    }


def test_putting_leaves_the_former_answer_as_it_was() -> None:
    former = Answer.none(1)
    former.put(np.array([0]), default(0.2)(rows(1)))
    assert not former.answered.any()


maybe_scores = st.integers(1, 6).flatmap(
    lambda n: st.lists(
        st.lists(st.none() | st.floats(0, 1), min_size=n, max_size=n), min_size=1, max_size=len(SOURCES)
    )
)


@given(maybe_scores)
def test_each_row_has_the_score_and_source_of_the_first_step_that_answers(
    table: list[list[float | None]],
) -> None:
    def step(number: int) -> Step:
        known = np.array([np.nan if score is None else score for score in table[number]])
        return lambda batch: Answer.of(
            SOURCES[number], known[batch.column("row").to_numpy()], version=number, ages=number
        )

    answered = told(answer(rows(len(table[0])), [step(number) for number in range(len(table))]))
    for row, column in enumerate(zip(*table, strict=True)):
        first = next((number for number, score in enumerate(column) if score is not None), None)
        assert answered["score"][row] == (None if first is None else column[first])
        assert answered["score_source"][row] == (None if first is None else SOURCES[first])
        assert answered["score_age_days"][row] == answered["model_version"][row] == first
