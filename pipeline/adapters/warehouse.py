"""The warehouse's own side: the engine for the control tables, whose errors are ours, not the driver's."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import dialect
from sqlalchemy.engine import ExceptionContext

from pipeline.adapters.driver_errors import driver_errors
from pipeline.errors import ExtractError, FatalError, MissingTable, RunError

quoted = dialect().identifier_preparer.quote_identifier  # type: ignore[no-untyped-call]
"""A name as PostgreSQL takes it, whatever characters and keywords it is made of."""


def warehouse_engine(url: str) -> sa.Engine:
    """An engine for the control tables; what fails in it is a TransientError or a FatalError.

    Lost connections, time-outs and deadlocks are transient; messages hold neither statements nor values.
    SQLAlchemy's IntegrityError stays as it is: whoever writes knows what a constraint's refusal means.
    """
    engine = sa.create_engine(
        sa.make_url(url).set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args={"connect_timeout": 10, "application_name": "nightshift"},
    )
    sa.event.listen(engine, "handle_error", _translated)
    return engine


def _translated(context: ExceptionContext) -> RunError | None:
    error = context.sqlalchemy_exception
    # A failed ping is no failure: the pool connects again.
    if context.is_pre_ping or not isinstance(error, sa.exc.DBAPIError):
        return None
    if isinstance(error, sa.exc.IntegrityError):
        return None
    try:
        with driver_errors():
            raise error
    except MissingTable as missing:
        return FatalError(f"{missing}. Run `nightshift migrate`")
    except ExtractError as refused:
        return FatalError(str(refused))
    except RunError as transient:
        return transient
