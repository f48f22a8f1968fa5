"""Connections to PostgreSQL that read and write Arrow (ADBC), for bulk data."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Connection


def arrow_connection(url: str) -> Connection:
    """An open connection; a context manager that closes it.

    The driver is imported here: it brings Polars, pandas and pyarrow.dataset along, and most of a night's
    tasks move no rows.
    """
    from adbc_driver_postgresql import dbapi

    return dbapi.connect(plain_url(url))


def plain_url(url: str) -> str:
    """The URL as PostgreSQL's own library takes it, without SQLAlchemy's driver name."""
    return re.sub(r"^postgresql\+\w+:", "postgresql:", url)
