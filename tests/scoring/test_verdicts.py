"""The engine's rules and the file of verdicts, without Great Expectations."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from pipeline.errors import ValidationError
from pipeline.job import Extract
from pipeline.partition import Partition
from pipeline.run import QUARANTINED, WITHHELD
from pipeline.scoring.boundary import REPLACEMENT, arrow_schema
from pipeline.scoring.rules import Reason, engine_reasons, raw
from pipeline.scoring.verdicts import Written, count_failing, count_good, staged, write_verdicts

DAY = date(2013, 5, 1)
EXTRACT = Extract(
    key=("carrier", "flight"),
    columns={
        "day": "date",
        "carrier": "text",
        "flight": "integer",
        "name": "text?",
        "distance": "float",
        "delay": "float?",
        "departs": "timestamp",
    },
    pii=("name",),
    sql="select",
)
Row = dict[str, Any]


def rows(*changes: Row) -> list[Row]:
    sound = {
        "day": DAY,
        "carrier": "UA",
        "name": "Ann",
        "distance": 100.0,
        "departs": datetime(2013, 5, 1, 12, tzinfo=UTC),
    }
    return [{**sound, "flight": number, **change} for number, change in enumerate(changes)]


def snapshot(folder: Path, given: Sequence[Row], extract: Extract = EXTRACT) -> Path:
    path = folder / "snapshot.parquet"
    pq.write_table(pa.Table.from_pylist(list(given), schema=arrow_schema(extract.columns)), path)
    return path


def engine_verdicts(folder: Path, *changes: Row, extract: Extract = EXTRACT) -> list[Row]:
    """Lines of the verdicts that the engine's own rules give."""
    path = snapshot(folder, rows(*changes), extract)
    with staged(path, extract, folder, memory_mb=256, threads=1) as stage:
        every = list(engine_reasons(extract, Partition(DAY)))
        total, counts = count_failing(stage, every)
        reasons = [reason for reason, count in zip(every, counts, strict=True) if count]
        written = write_verdicts(stage, extract, reasons, folder / "verdicts.parquet")
        good = count_good(stage, reasons)
    assert good + written.quarantined + written.withheld == total == len(changes)
    lines: list[Row] = pq.read_table(folder / "verdicts.parquet").to_pylist()
    return lines


def short(lines: list[Row]) -> list[tuple[Any, ...]]:
    return [
        (line["row"], line["verdict"], line["rule"].removeprefix("engine:"), line["column"]) for line in lines
    ]


AT_A_PROMPT = """
import sys
from pathlib import Path
from pipeline.job import Extract
from pipeline.scoring.verdicts import staged
extract = Extract(key=("flight",), columns={"day": "date", "flight": "integer"}, sql="select")
with staged(Path(sys.argv[1]), extract, Path(sys.argv[2]), memory_mb=256, threads=1) as stage:
    print(*stage.connection.execute("select current_setting('enable_progress_bar')").fetchone())
"""


def test_no_progress_bar_is_drawn_into_the_log_of_a_long_validation(tmp_path: Path) -> None:
    path = snapshot(tmp_path, rows({}))
    command = [sys.executable, "-c", AT_A_PROMPT, str(path), str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_clean_snapshot_has_a_file_without_lines(tmp_path: Path) -> None:
    assert engine_verdicts(tmp_path, {}, {}, {}) == []


@pytest.mark.parametrize("change", [{}, {"carrier": None}, {"distance": None}])
def test_the_file_has_the_same_columns_and_types_whatever_it_holds(tmp_path: Path, change: Row) -> None:
    engine_verdicts(tmp_path, change)
    schema = pq.read_schema(tmp_path / "verdicts.parquet")
    assert schema.names == ["row", "verdict", "rule", "column", "value", "key"]
    assert schema.types == [pa.int64(), *[pa.string()] * 5]


def test_a_null_key_is_withheld(tmp_path: Path) -> None:
    lines = engine_verdicts(tmp_path, {}, {"carrier": None}, {"flight": None})
    assert short(lines) == [
        (1, WITHHELD, "key_not_null", "carrier"),
        (2, WITHHELD, "key_not_null", "flight"),
    ]


def test_every_copy_of_a_duplicated_key_is_withheld(tmp_path: Path) -> None:
    lines = engine_verdicts(tmp_path, {"flight": 2}, {}, {}, {"flight": 2, "carrier": "AA"}, {"flight": 2})
    assert [line["row"] for line in lines] == [0, 2, 4]
    assert {line["verdict"] for line in lines} == {WITHHELD}
    assert lines[0]["value"] == "UA, 2"


def test_two_keys_with_a_null_are_null_and_not_duplicates(tmp_path: Path) -> None:
    lines = engine_verdicts(tmp_path, {"carrier": None, "flight": 7}, {"carrier": None, "flight": 7})
    assert [rule for _, _, rule, _ in short(lines)] == ["key_not_null", "key_not_null"]


def test_a_key_of_one_column_is_compared_too(tmp_path: Path) -> None:
    extract = EXTRACT.model_copy(update={"key": ("flight",)})
    lines = engine_verdicts(tmp_path, {"flight": 1}, {"flight": 1}, {"flight": 5}, extract=extract)
    assert [line["row"] for line in lines] == [0, 1]


@pytest.mark.parametrize("day", [date(2013, 5, 2), None])
def test_a_row_of_another_day_or_of_none_is_withheld(tmp_path: Path, day: date | None) -> None:
    lines = engine_verdicts(tmp_path, {}, {"day": day})
    assert short(lines) == [(1, WITHHELD, "in_partition", "day")]


def test_a_null_where_none_is_declared_is_quarantined_and_elsewhere_not(tmp_path: Path) -> None:
    lines = engine_verdicts(tmp_path, {"distance": None}, {"delay": None, "name": None})
    assert short(lines) == [(0, QUARANTINED, "not_null", "distance")]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_quarantined(tmp_path: Path, value: float) -> None:
    lines = engine_verdicts(tmp_path, {"delay": 1.0}, {"delay": value})
    assert short(lines) == [(1, QUARANTINED, "finite", "delay")]
    assert lines[0]["value"] == str(value)


def test_a_file_s_minima_and_maxima_hide_no_number_that_is_not_finite(tmp_path: Path) -> None:
    """Parquet's statistics leave NaN out, and DuckDB skips rows by them unless it is told not to."""
    failing = [
        Reason("alone", ("delay",), QUARANTINED, sa.not_(sa.func.isfinite(raw("delay")))),
        Reason("above", ("delay",), QUARANTINED, raw("delay") > 5),
    ]
    given = rows({"delay": 1.0}, {"delay": float("nan")}, {"delay": 1.0})
    for reason in failing:
        with staged(snapshot(tmp_path, given), EXTRACT, tmp_path, memory_mb=256, threads=1) as stage:
            written = write_verdicts(stage, EXTRACT, [reason], tmp_path / "verdicts.parquet")
            assert (written.quarantined, count_good(stage, [reason])) == (1, 2)


def test_text_that_was_not_utf_8_is_quarantined(tmp_path: Path) -> None:
    lines = engine_verdicts(tmp_path, {}, {"carrier": f"U{REPLACEMENT}"})
    assert short(lines) == [(1, QUARANTINED, "valid_text", "carrier")]


def test_a_row_carries_all_its_reasons_under_its_gravest_verdict(tmp_path: Path) -> None:
    lines = engine_verdicts(tmp_path, {}, {"carrier": None, "distance": float("nan"), "name": REPLACEMENT})
    assert short(lines) == [
        (1, WITHHELD, "key_not_null", "carrier"),
        (1, WITHHELD, "valid_text", "name"),
        (1, WITHHELD, "finite", "distance"),
    ]


def test_pii_is_masked_as_value_and_in_the_key(tmp_path: Path) -> None:
    extract = EXTRACT.model_copy(update={"key": ("name", "flight")})
    (line,) = engine_verdicts(tmp_path, {"name": f"Ann{REPLACEMENT}"}, extract=extract)
    assert line["value"] == "***"
    assert line["key"] == '{"name":"***","flight":0}'


def test_a_long_value_is_cut(tmp_path: Path) -> None:
    (line,) = engine_verdicts(tmp_path, {"carrier": REPLACEMENT * 1000})
    assert line["value"] == REPLACEMENT * 200


def test_instants_in_values_are_utc(tmp_path: Path) -> None:
    failing = Reason("late", ("departs",), QUARANTINED, raw("departs").is_not(None))
    with staged(snapshot(tmp_path, rows({})), EXTRACT, tmp_path, memory_mb=256, threads=1) as stage:
        write_verdicts(stage, EXTRACT, [failing], tmp_path / "verdicts.parquet")
    assert pq.read_table(tmp_path / "verdicts.parquet")["value"].to_pylist() == ["2013-05-01 12:00:00+00"]


def test_lines_are_counted_by_rule_and_rows_once(tmp_path: Path) -> None:
    reasons = [
        Reason("one", ("name",), QUARANTINED, sa.column("flight", sa.BigInteger) > 0),
        Reason("two", ("name",), WITHHELD, sa.column("flight", sa.BigInteger) > 1),
    ]
    with staged(snapshot(tmp_path, rows({}, {}, {})), EXTRACT, tmp_path, memory_mb=256, threads=1) as stage:
        written = write_verdicts(stage, EXTRACT, reasons, tmp_path / "verdicts.parquet")
        assert count_good(stage, reasons) == 1
    assert written == Written(quarantined=1, withheld=1, lines={("one", "name"): 2, ("two", "name"): 1})


def test_lines_come_in_the_order_of_rows_though_every_key_stands_twice(tmp_path: Path) -> None:
    number = 300_000
    bare = Extract(key=("flight",), columns={"day": "date", "flight": "integer"}, sql="select")
    table = pa.table({"day": [DAY] * number, "flight": [row // 2 for row in range(number)]})
    path = tmp_path / "snapshot.parquet"
    pq.write_table(table, path, row_group_size=50_000)
    with staged(path, bare, tmp_path, memory_mb=128, threads=2) as stage:
        twice = [reason for reason in engine_reasons(bare, Partition(DAY)) if "unique" in reason.rule]
        write_verdicts(stage, bare, twice, tmp_path / "verdicts.parquet")
    assert pq.read_table(tmp_path / "verdicts.parquet")["row"].to_pylist() == list(range(number))


def test_nothing_but_the_verdicts_is_left_beside_the_snapshot(tmp_path: Path) -> None:
    engine_verdicts(tmp_path, {"carrier": None})
    assert {path.name for path in tmp_path.iterdir()} == {"snapshot.parquet", "verdicts.parquet"}


def test_the_folder_s_name_is_not_taken_for_a_column(tmp_path: Path) -> None:
    folder = tmp_path / "day=2020-01-01"
    folder.mkdir()
    assert engine_verdicts(folder, {}, {}) == []


def test_out_of_memory_is_a_failed_validation(tmp_path: Path) -> None:
    number = 200_000
    table = pa.Table.from_pylist(rows({}), schema=arrow_schema(EXTRACT.columns))
    many = pa.concat_tables([table] * number).set_column(2, "flight", pa.array(range(number), pa.int64()))
    path = tmp_path / "snapshot.parquet"
    pq.write_table(many, path)
    reasons = list(engine_reasons(EXTRACT, Partition(DAY)))
    with (
        pytest.raises(ValidationError, match=r"must be judged in 4 MB; .* Raise resources\.memory_mb"),
        staged(path, EXTRACT, tmp_path, memory_mb=4, threads=1) as stage,
    ):
        count_failing(stage, reasons)
    assert [path.name for path in tmp_path.iterdir()] == ["snapshot.parquet"]
