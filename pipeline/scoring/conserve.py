"""Conservation: every snapshot row ends in exactly one of scored, fallback, withheld. Proved by key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb

from pipeline.errors import SealError

_PROOF = """
with expected as (
    select {keys} from read_parquet($snapshot, file_row_number = true)
    where file_row_number not in (select "row" from read_parquet($withheld))
), given as (
    select {keys}, count(*) as copies from read_parquet($parts) group by all
)
select
    count(*) filter (where given.copies is null) as missing,
    count(*) filter (where expected.{first} is null) as foreign_rows,
    count(*) filter (where given.copies > 1) as repeated,
    count(*) as matched
from expected full join given using ({keys})
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
    number of missing, foreign and repeated keys; never the keys.
    """
    quoted = ['"' + name.replace('"', '""') + '"' for name in key]
    query = _PROOF.format(keys=", ".join(quoted), first=quoted[0])
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{memory_mb}MB",
        "temp_directory": str(spill),
        "threads": 2,
    }
    with duckdb.connect(config=config) as connection:
        values = {"snapshot": str(snapshot), "withheld": str(withheld), "parts": [str(p) for p in parts]}
        row = connection.execute(query, values).fetchone()
        count = connection.execute(
            'select count(distinct "row") from read_parquet($withheld)', {"withheld": str(withheld)}
        ).fetchone()
    if row is None or count is None:
        raise SealError("the proof of conservation must give one row; got none")
    missing, foreign, repeated, matched = row
    if missing or foreign or repeated or matched + count[0] != rows_in:
        raise SealError(
            f"every one of {rows_in} snapshot rows must be predicted once or withheld; got "
            f"{missing} missing, {foreign} foreign, {repeated} repeated keys, {count[0]} withheld rows. "
            "Nothing was published"
        )
    return int(matched)
