"""What analysts may read, as the warehouse itself describes it: tables, views, columns and their comments."""

from __future__ import annotations

from itertools import groupby

import sqlalchemy as sa

from pipeline.adapters.job_tables import history_view
from pipeline.adapters.tables import ANALYST, PREDICTIONS, SCHEMA
from pipeline.monitoring.report.values import ColumnFacts, TableFacts

_READABLE = sa.text("""
select space.nspname || '.' || class.relname as name, obj_description(class.oid, 'pg_class') as comment,
    attribute.attname as column_name, format_type(attribute.atttypid, attribute.atttypmod) as kind,
    col_description(class.oid, attribute.attnum) as column_comment
from pg_class as class
join pg_namespace as space on space.oid = class.relnamespace
join pg_attribute as attribute on attribute.attrelid = class.oid
where attribute.attnum > 0 and not attribute.attisdropped and class.relkind in ('r', 'p', 'v')
    and has_table_privilege(:analyst, class.oid, 'select')
    and (space.nspname = :control or (space.nspname = :predictions and class.relname = any(:views)))
order by space.nspname desc, class.relname, attribute.attnum
""")


def readable(connection: sa.Connection, job: str) -> list[TableFacts]:
    """The job's views and the control tables that the analysts' role may read, with their comments."""
    values = {
        "analyst": ANALYST,
        "control": SCHEMA,
        "predictions": PREDICTIONS,
        "views": [job, history_view(job)],
    }
    rows = connection.execute(_READABLE, values).all()
    return [
        TableFacts(
            name,
            comment,
            tuple(ColumnFacts(row.column_name, row.kind, row.column_comment) for row in columns),
        )
        for (name, comment), columns in groupby(rows, key=lambda row: (row.name, row.comment))
    ]
