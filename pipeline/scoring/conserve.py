"""Conservation: every snapshot row ends in exactly one of scored, fallback, withheld. Proved by key."""

from __future__ import annotations

from collections.abc import Sequence
from glob import escape
from pathlib import Path

from pipeline.errors import SealError

# As many predictions as expected rows, each with a key of its own, each key an expected one: so the expected
# keys are as many, and the same. A key with a null is never an expected one.
_PROOF = """
with expected as not materialized (
    select {keys} from read_parquet($snapshot, file_row_number = true)
    where file_row_number not in (select "row" from read_parquet($withheld))
), given as not materialized (
    select {keys} from read_parquet($parts)
)
select
    (select count(*) from read_parquet($snapshot)) as total,
    (select count(*) from expected) as expected,
    (select count(*) from given) as given,
    (select count(*) from (select distinct {keys} from given)) as unlike,
    (select count(*) from given anti join expected using ({keys})) as unexpected
"""


def prove(
    key: Sequence[str],
    snapshot: Path,
    withheld: Path,
    parts: Sequence[Path],
    *,
    rows_in: int,
    spill: Path,
    memory_mb: int,
) -> int:
    """The number of predicted rows, once it is proved that they and the withheld rows are the snapshot.

    `withheld` is a Parquet file with the column `row`: positions in the snapshot. Raises SealError with the
    numbers of rows and of foreign and repeated keys; never the keys.
    """
    if not parts:
        raise SealError("a run must have at least one part, even if it is empty; got none")
    total, expected, given, unlike, unexpected = _counts(key, snapshot, withheld, parts, spill, memory_mb)
    if total != rows_in or given != expected or unlike != given or unexpected:
        raise SealError(
            f"every one of {rows_in} snapshot rows must be predicted once or withheld; got {total} rows, "
            f"{total - expected} withheld, {given} predicted, of which {unexpected} with a foreign and "
            f"{given - unlike} with a repeated key. Nothing was published"
        )
    return given


def _counts(
    key: Sequence[str], snapshot: Path, withheld: Path, parts: Sequence[Path], spill: Path, memory_mb: int
) -> tuple[int, ...]:
    import duckdb

    keys = ", ".join('"' + name.replace('"', '""') + '"' for name in key)
    files: dict[str, object] = {
        "snapshot": escape(str(snapshot)),
        "withheld": escape(str(withheld)),
        "parts": [escape(str(part)) for part in parts],
    }
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{memory_mb}MB",
        "temp_directory": str(spill),
        "threads": 2,
        "preserve_insertion_order": False,
    }
    with duckdb.connect(config=config) as connection:
        # Where there is no script, as in `python -c`, DuckDB would draw its bar into the command's output.
        connection.execute("SET enable_progress_bar = false")
        counts: tuple[int, ...] = connection.execute(_PROOF.format(keys=keys), files).fetchall()[0]
    return counts
