from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.scoring.boundary import conform
from pipeline.scoring.fingerprint import Fingerprint, combined, of_many, of_table
from pipeline.streams import rebatch

unhurried = settings(deadline=None)  # the machine may be busy

SCHEMA = pa.schema(
    {
        "text": pa.string(),
        "integer": pa.int64(),
        "float": pa.float64(),
        "boolean": pa.bool_(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us", tz="UTC"),
    }
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "text": st.text(st.characters(codec="utf-8"), max_size=5),
    "integer": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(allow_nan=False),
    "boolean": st.booleans(),
    "date": st.dates(),
    "timestamp": st.datetimes(timezones=st.just(UTC)),
}
Row = tuple[Any, ...]
a_row: st.SearchStrategy[Row] = st.tuples(*(st.none() | VALUES[name] for name in SCHEMA.names))
some_rows = st.lists(a_row, min_size=1, max_size=12)


def table(rows: list[Row], schema: pa.Schema = SCHEMA) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)


def of_batches(batches: list[pa.RecordBatch], rows: int) -> str:
    fingerprint = Fingerprint(batches[0].schema)
    for batch in rebatch(batches, rows):
        fingerprint.update(batch)
    return fingerprint.hexdigest()


def cut(whole: pa.Table, ends: list[int]) -> Iterator[pa.RecordBatch]:
    """The table in slices that share its buffers and start at an offset."""
    (batch,) = whole.combine_chunks().to_batches()
    places = sorted({0, len(whole), *(end % (len(whole) + 1) for end in ends)})
    for start, end in pairwise(places):
        yield batch.slice(start, end - start)


@unhurried
@given(some_rows, st.lists(st.integers(0, 100)), st.integers(1, 5))
def test_the_batches_that_rows_came_in_do_not_matter(rows: list[Row], ends: list[int], size: int) -> None:
    whole = table(rows)
    assert of_batches(list(cut(whole, ends)), size) == of_batches(whole.to_batches(), size)


@unhurried
@given(some_rows, some_rows)
def test_the_buffers_around_a_slice_do_not_matter(before: list[Row], rows: list[Row]) -> None:
    sliced = table([*before, *rows, *before]).slice(len(before), len(rows))
    assert of_table(sliced) == of_table(table(rows))


@unhurried
@given(some_rows)
def test_encodings_of_text_do_not_matter_behind_the_boundary(rows: list[Row]) -> None:
    (plain,) = table(rows).combine_chunks().to_batches()
    for encoding in (pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        text = plain["text"].dictionary_encode() if pa.types.is_dictionary(encoding) else plain["text"]
        other = plain.set_column(0, "text", text.cast(encoding))
        assert of_table(pa.table(conform(other, SCHEMA))) == of_table(table(rows))


def test_what_lies_hidden_under_a_null_does_not_matter() -> None:
    validity = pa.py_buffer(b"\x05")
    for values in ([1, 2, 3], [1, 9, 3]):
        column = pa.Array.from_buffers(pa.int64(), 3, [validity, pa.array(values).buffers()[1]])
        assert of_table(pa.table({"n": column})) == of_table(pa.table({"n": pa.array([1, None, 3])}))


def test_text_hidden_under_a_null_does_not_matter() -> None:
    _, offsets, data = pa.array(["a", "secret", "b"]).buffers()
    hidden = pa.Array.from_buffers(pa.string(), 3, [pa.py_buffer(b"\x05"), offsets, data])
    assert hidden.to_pylist() == ["a", None, "b"]
    assert of_table(pa.table({"t": hidden})) == of_table(pa.table({"t": pa.array(["a", None, "b"])}))


@unhurried
@given(some_rows, st.data())
def test_any_changed_value_changes_it(rows: list[Row], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(rows) - 1))
    column = data.draw(st.integers(0, len(SCHEMA) - 1))
    value = data.draw(st.none() | VALUES[SCHEMA.names[column]])
    old = rows[place]
    assume(value != old[column] or type(value) is not type(old[column]))
    changed = [*rows[:place], (*old[:column], value, *old[column + 1 :]), *rows[place + 1 :]]
    assert of_table(table(changed)) != of_table(table(rows))


@unhurried
@given(some_rows, st.data())
def test_swapped_rows_change_it(rows: list[Row], data: st.DataObject) -> None:
    one, other = data.draw(st.tuples(*[st.integers(0, len(rows) - 1)] * 2))
    assume(rows[one] != rows[other])
    swapped = list(rows)
    swapped[one], swapped[other] = rows[other], rows[one]
    assert of_table(table(swapped)) != of_table(table(rows))


@unhurried
@given(some_rows)
def test_a_missing_or_repeated_row_changes_it(rows: list[Row]) -> None:
    digests = {of_table(table(some)) for some in (rows, rows[:-1], [*rows, rows[-1]])}
    assert len(digests) == 3


def test_text_may_not_move_between_rows_or_columns() -> None:
    tables = (
        {"a": ["xy", "z"], "b": ["", ""]},
        {"a": ["x", "yz"], "b": ["", ""]},
        {"a": ["", ""], "b": ["xy", "z"]},
    )
    assert len({of_table(pa.table(columns)) for columns in tables}) == 3


def test_bytes_of_text_may_not_pass_for_another_number_of_rows() -> None:
    one = pa.table({"a": ["\0" * 4], "b": ["\0" * 8]})
    two = pa.table({"a": ["\0\x08\0\0", ""], "b": ["", ""]})
    assert of_table(one) != of_table(two)


def test_whole_numbers_count_to_the_last_digit_beside_nulls() -> None:
    assert of_table(pa.table({"n": [2**53, None]})) != of_table(pa.table({"n": [2**53 + 1, None]}))


def test_no_pattern_of_nulls_passes_for_values() -> None:
    bits = [bool(byte >> (7 - i) & 1) for byte in b"no nulls" for i in range(8)]
    full = pa.table({"n": pa.array([0] * 64)})
    holes = pa.table({"n": pa.array([0 if bit else None for bit in bits])})
    assert of_table(full) != of_table(holes)


def test_a_renamed_reordered_or_retyped_column_changes_it() -> None:
    tables = [
        pa.table({"a": pa.array([1]), "b": pa.array([1])}),
        pa.table({"a": pa.array([1]), "c": pa.array([1])}),
        pa.table({"b": pa.array([1]), "a": pa.array([1])}),
        pa.table({"a": pa.array([1.0]), "b": pa.array([1])}),
        pa.table({"a": pa.array([1], pa.timestamp("us", tz="UTC")), "b": pa.array([1])}),
        pa.table({"a": pa.array([1], pa.timestamp("us")), "b": pa.array([1])}),
        pa.table({"a": pa.array([None], pa.int64()), "b": pa.array([1])}),
        pa.table({"a": pa.array([None], pa.null()), "b": pa.array([1])}),
    ]
    assert len({of_table(each) for each in tables}) == len(tables)


def test_metadata_does_not_matter() -> None:
    field = pa.field("a", pa.int64(), metadata={"POSTGRESQL:type": "int8"})
    marked = pa.table([pa.array([1])], schema=pa.schema([field], metadata={"made": "today"}))
    assert of_table(marked) == of_table(pa.table({"a": [1]}))


@pytest.mark.parametrize("column", [pa.array(["x"], pa.large_string()), pa.array([[1]]), pa.array([b"x"])])
def test_a_column_that_never_passed_the_boundary_is_refused(column: pa.Array) -> None:
    with pytest.raises(TypeError, match="must be of conformed columns"):
        of_table(pa.table({"a": column}))


def test_another_process_finds_the_same_digest() -> None:
    row = ("é", -1, 0.1, True, date(2013, 5, 1), datetime(2013, 5, 1, 7, tzinfo=UTC))
    code = (
        "import pyarrow as pa, pyarrow.ipc, sys; from pipeline.scoring.fingerprint import of_table; "
        "print(of_table(pa.ipc.open_stream(sys.stdin.buffer).read_all()))"
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        writer.write_table(table([row, (None,) * 6]))
    done = subprocess.run(
        [sys.executable, "-c", code], input=sink.getvalue().to_pybytes(), capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == of_table(table([row, (None,) * 6]))


def test_the_combined_digest_covers_rows_histories_and_parameters() -> None:
    day, instant = date(2013, 5, 1), datetime(2013, 5, 1, tzinfo=UTC)
    digests = [
        combined("r", {"h": "x"}, {"p": 1}),
        combined("s", {"h": "x"}, {"p": 1}),
        combined("r", {"h": "y"}, {"p": 1}),
        combined("r", {"i": "x"}, {"p": 1}),
        combined("r", {"h": "x"}, {"q": 1}),
        *(
            combined("r", {"h": "x"}, {"p": value})
            for value in (2, 1.0, True, None, "1", day, instant, str(day))
        ),
    ]
    assert len(set(digests)) == len(digests)


def test_the_order_of_names_does_not_matter_and_that_of_digests_does() -> None:
    assert combined("r", {"a": "1", "b": "2"}, {"p": 1, "q": 2}) == combined(
        "r", {"b": "2", "a": "1"}, {"q": 2, "p": 1}
    )
    assert of_many(["a", "b"]) != of_many(["b", "a"]) != of_many(["ab"])
