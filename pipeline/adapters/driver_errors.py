"""A driver's error becomes ours: what kind it is, and never a statement's text or a row's value."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from adbc_driver_manager import Error as AdbcError
from adbc_driver_manager import OperationalError as AdbcOperationalError
from sqlalchemy.exc import DBAPIError, OperationalError

from pipeline.errors import ExtractError, MissingTable, RunError, TimeLimit, TransientError

_TRANSIENT_STATES = ("08", "53", "57P", "40", "55P03", "25P03", "25P04", "58")
_CANCELED = "57014"
_MISSING_STATES = ("42P01", "42703", "42501", "3F000")
_SPEAKING_STATES = ("42", "3F000")
"""Errors about names and types: their first line holds no value. A syntax error quotes the statement."""
_SYNTAX_ERROR = "42601"
_MISSING_ELSEWHERE = re.compile(
    r"no such (table|column)|(Catalog|Binder) Error: (Table with name|Referenced (table|column))"
)

_ABSENT_MODULE = re.compile(r"(?:Required|No) module (?:named )?'([\w.]+)'")


@contextmanager
def driver_errors() -> Iterator[None]:
    """Turn a driver's error into ours, by its SQLSTATE where the driver gives one."""
    try:
        yield
    except (AdbcError, DBAPIError) as error:
        # Without its cause, which quotes the statement and sometimes a value.
        raise _translated(error) from None


def _translated(error: AdbcError | DBAPIError) -> RunError:
    original = getattr(error, "orig", None) or error
    if absent := _ABSENT_MODULE.search(str(original)):
        return ExtractError(
            f"the database's driver must have the Python modules it needs; {absent[1]!r} is missing. "
            "Install it, or cast the column in the declared query"
        )
    state = getattr(original, "sqlstate", None)
    return _by_state(state, _first_line(original)) if state else _without_state(error, original)


def _by_state(state: str, line: str) -> RunError:
    if state == _CANCELED or state.startswith(_TRANSIENT_STATES):
        kind = TimeLimit if state == _CANCELED else TransientError
        return kind(f"the database must answer; got SQLSTATE {state}, {_condition(state)}")
    if state in _MISSING_STATES:
        return _missing(line)
    told = line if state.startswith(_SPEAKING_STATES) and state != _SYNTAX_ERROR else _condition(state)
    return ExtractError(f"the database must accept the statement; got SQLSTATE {state}, {told}")


def _without_state(error: AdbcError | DBAPIError, original: BaseException) -> RunError:
    line = _first_line(original)
    code = getattr(original, "sqlite_errorname", type(original).__name__)
    if _MISSING_ELSEWHERE.search(line):
        return _missing(line)
    if code != "SQLITE_ERROR" and isinstance(error, OperationalError | AdbcOperationalError):
        return TransientError(f"the database must answer; got {code}: {line}")
    return ExtractError(f"the database must accept the statement; got {code}. Run it by hand to see more")


def _missing(line: str) -> MissingTable:
    return MissingTable(f"every table and column that a query names must exist and be readable; got: {line}")


def _condition(state: str) -> str:
    """The name of an SQLSTATE, as words."""
    try:
        name = psycopg.errors.lookup(state).__name__
    except KeyError:
        return "which this version does not know"
    return re.sub(r"(?<!^)(?=[A-Z])", " ", name).lower()


def _first_line(original: BaseException) -> str:
    lines = str(original).splitlines() or [type(original).__name__]
    return re.sub(r"^.*?\b(ERROR|FATAL):\s+", "", lines[0])[:300]
