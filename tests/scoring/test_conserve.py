"""Conservation: the proof holds exactly where predicted and withheld rows are the snapshot, each once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import SealError
from pipeline.scoring.conserve import prove

Key = tuple[str | None, int | None]
SCHEMA = pa.schema([("order", pa.string()), ("number", pa.int64())])
SNAPSHOT: tuple[Key, ...] = (("a", 1), ("a", 2), ("b", 1), (None, 1), ("c", 3), ("c", 3))


@dataclass(frozen=True)
class Output:
    """A snapshot of keys, the positions withheld, and the keys predicted, by part."""

    snapshot: Sequence[Key] = SNAPSHOT
    withheld: Sequence[int] = (3, 4, 5)
    parts: Sequence[Sequence[Key]] = ((("a", 1), ("a", 2)), (("b", 1),))

    def prove(self, rows_in: int | None = None, folder: str = "") -> int:
        """The number of predicted rows; raises SealError."""
        with TemporaryDirectory() as root:
            place = Path(root, folder)
            place.mkdir(exist_ok=True)
            pq.write_table(_keys(self.snapshot), place / "snapshot.parquet")
            pq.write_table(pa.table({"row": pa.array(self.withheld, pa.int64())}), place / "withheld.parquet")
            parts = [place / f"part-{number}.parquet" for number in range(len(self.parts))]
            for path, keys in zip(parts, self.parts, strict=True):
                pq.write_table(_keys(keys), path)
            return prove(
                SCHEMA.names,
                place / "snapshot.parquet",
                place / "withheld.parquet",
                parts,
                rows_in=len(self.snapshot) if rows_in is None else rows_in,
                spill=place,
                memory_mb=256,
            )


def _keys(keys: Sequence[Key]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(SCHEMA.names, key, strict=True)) for key in keys], schema=SCHEMA)


GOOD = Output()


def test_rows_that_are_conserved_are_counted() -> None:
    assert GOOD.prove() == 3


def test_the_order_of_rows_and_the_cut_into_parts_do_not_matter() -> None:
    assert replace(GOOD, parts=[[("b", 1)], [], [("a", 2), ("a", 1)]]).prove() == 3


def test_an_empty_snapshot_is_conserved_by_an_empty_part() -> None:
    assert Output([], [], [[]]).prove() == 0


def test_a_day_of_which_all_is_withheld_is_conserved() -> None:
    assert replace(GOOD, withheld=range(6), parts=[[]]).prove() == 0


def test_a_row_may_be_withheld_for_several_reasons() -> None:
    assert replace(GOOD, withheld=[3, 3, 4, 5, 5, 5]).prove() == 3


def test_a_folder_may_look_like_a_pattern() -> None:
    assert GOOD.prove(folder="a[b]*?c") == 3


_BROKEN = {
    "a row is missing": replace(GOOD, parts=[[("a", 1), ("a", 2)]]),
    "a row is foreign": replace(GOOD, parts=[[("a", 1), ("a", 2), ("b", 1), ("z", 9)]]),
    "a row is another": replace(GOOD, parts=[[("a", 1), ("a", 2), ("z", 9)]]),
    "a row is repeated": replace(GOOD, parts=[[("a", 1), ("a", 2), ("b", 1), ("a", 1)]]),
    "a row is repeated in another's place": replace(GOOD, parts=[[("a", 1), ("a", 2)], [("a", 1)]]),
    "a row is withheld and predicted": replace(GOOD, withheld=[0, 3, 4, 5]),
    "a null key is predicted": replace(GOOD, withheld=[4, 5], parts=[*GOOD.parts, [(None, 1)]]),
    "one copy of a duplicate is predicted": replace(GOOD, withheld=[3], parts=[*GOOD.parts, [("c", 3)]]),
    "both copies are predicted": replace(GOOD, withheld=[3], parts=[*GOOD.parts, [("c", 3), ("c", 3)]]),
    "a position beyond the snapshot hides a loss": replace(
        GOOD, withheld=[3, 4, 5, 99], parts=[[("a", 1), ("a", 2)]]
    ),
    "no part was loaded": replace(GOOD, withheld=range(6), parts=[]),
}


@pytest.mark.parametrize("output", _BROKEN.values(), ids=_BROKEN)
def test_what_is_not_conserved_is_refused(output: Output) -> None:
    with pytest.raises(SealError):
        output.prove()


def test_a_snapshot_that_lost_rows_since_it_was_read_is_refused() -> None:
    with pytest.raises(SealError, match=r"every one of 7 snapshot rows .* got 6 rows"):
        GOOD.prove(rows_in=7)


def test_the_message_counts_and_tells_no_key() -> None:
    output = Output([("secret", 1), ("b", 2)], [], [[("secret", 1), ("secret", 1), ("other", 3)]])
    with pytest.raises(SealError) as caught:
        output.prove()
    assert "0 withheld, 3 predicted, of which 1 with a foreign and 1 with a repeated key" in str(caught.value)
    assert "secret" not in str(caught.value)


_KEY = st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from([1, 2, None]))


@st.composite
def outputs(draw: st.DrawFn) -> Output:
    """Outputs that are conserved, or differ from it by a few rows."""
    snapshot = draw(st.lists(_KEY, max_size=6))
    copies = Counter(snapshot)
    due = {row for row, key in enumerate(snapshot) if None in key or copies[key] > 1}
    withheld = draw(st.one_of(st.just(due), st.sets(st.integers(0, 7), max_size=6)))
    kept = [key for row, key in enumerate(snapshot) if row not in withheld]
    changed = draw(st.one_of(st.just(kept), st.lists(_KEY, max_size=6), st.just([*kept, *kept[:1]])))
    cut = draw(st.integers(0, len(changed)))
    return Output(snapshot, sorted(withheld), [changed[:cut], changed[cut:]])


def conserved(output: Output) -> bool:
    """The law, by counting."""
    expected = [key for row, key in enumerate(output.snapshot) if row not in output.withheld]
    given_keys = [key for part in output.parts for key in part]
    unique = len(set(given_keys)) == len(given_keys)
    return unique and Counter(expected) == Counter(given_keys) and not any(None in key for key in given_keys)


@settings(max_examples=40, deadline=None)
@given(outputs())
def test_the_proof_holds_exactly_where_the_law_holds(output: Output) -> None:
    if conserved(output):
        assert output.prove() == sum(map(len, output.parts))
    else:
        with pytest.raises(SealError):
            output.prove()


class Watched:
    """A connection that remembers, of each statement, whether a bar would be drawn while it runs."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self.bars: list[bool] = []

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def execute(self, statement: str, *values: object) -> duckdb.DuckDBPyConnection:
        setting = self.connection.execute("select current_setting('enable_progress_bar')").fetchone()
        self.bars.append(bool(setting and setting[0]))
        return self.connection.execute(statement, *values)


def test_a_slow_proof_draws_no_bar_into_a_commands_output(monkeypatch: pytest.MonkeyPatch) -> None:
    connect, opened = duckdb.connect, list[Watched]()

    def drawing(**settings: Any) -> Watched:
        connection = connect(**settings)
        connection.execute("set enable_progress_bar = true")
        opened.append(Watched(connection))
        return opened[-1]

    monkeypatch.setattr(duckdb, "connect", drawing)
    assert Output().prove() == 3
    assert opened[0].bars[-1] is False
