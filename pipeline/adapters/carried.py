"""The last published scores of earlier days, for rows that have to carry one forward."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pyarrow as pa
from sqlalchemy.dialects.postgresql import dialect

from pipeline.adapters.arrow_connection import arrow_connection
from pipeline.adapters.migrate import rows_table
from pipeline.adapters.source import driver_errors
from pipeline.adapters.tables import SCHEMA
from pipeline.partition import Partition

MODELS = ("champion", "challenger", "previous_model", "baseline")
"""Sources whose scores may be carried: a carried score is never carried again."""

_quote = dialect().identifier_preparer.quote_identifier  # type: ignore[no-untyped-call]


def earlier_scores(
    url: str, job: str, partition: Partition, key: Sequence[str], max_age_days: int
) -> pa.Table:
    """One row per key: the key columns, score, score_age_days, model_version of its newest published score.

    Only days before `partition` and not older than `max_age_days` count, and only scores that a model gave.
    """
    columns = ", ".join(f"rows.{_quote(name)}" for name in key)
    sources = ", ".join(f"'{source}'" for source in MODELS)
    sql = (
        f"select distinct on ({columns}) {columns}, rows.score, "
        "($2 - rows.day)::integer as score_age_days, rows.model_version "
        f"from {SCHEMA}.pointer join {SCHEMA}.{_quote(rows_table(job))} rows "
        "on rows.day = pointer.day and rows.run_no = pointer.run_no "
        "where pointer.job = $1 and pointer.day < $2 and pointer.day >= $3 "
        f"and rows.day < $2 and rows.day >= $3 and rows.score_source in ({sources}) "
        f"order by {columns}, rows.day desc"
    )
    oldest = partition.day - timedelta(days=max_age_days)
    with driver_errors(), arrow_connection(url) as connection, connection.cursor() as cursor:
        cursor.execute(sql, (job, partition.day, oldest))
        found: pa.Table = cursor.fetch_arrow_table()
        return found
