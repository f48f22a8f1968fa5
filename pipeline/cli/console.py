"""What the commands print: results on stdout, everything else on stderr; `--json` is one line on stdout."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime
from functools import wraps
from math import isfinite
from typing import Any, ParamSpec, TypeVar

import structlog
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

P = ParamSpec("P")
R = TypeVar("R")

# Wider than most terminals rather than wrapped: lines stay whole for copying and for grep.
out = Console(highlight=False, soft_wrap=True, width=240)
err = Console(stderr=True, highlight=False)


def configure_logging(*, verbose: bool) -> None:
    """Structured logs on stderr: key=value lines on a terminal, one JSON object a line elsewhere."""
    on_terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(colors=on_terminal and not err.no_color)
            if on_terminal
            else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO if verbose else logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


@contextmanager
def expected_warnings() -> Iterator[None]:
    """Warnings of what is broken on purpose are no news; with --verbose they are told all the same."""
    before = structlog.get_config()["wrapper_class"]
    if not structlog.get_logger().is_enabled_for(logging.INFO):
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    try:
        yield
    finally:
        structlog.configure(wrapper_class=before)


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """End a command with the exit code of the error tree and a sentence instead of a traceback."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        from pipeline.errors import NightshiftError

        try:
            return command(*args, **kwargs)
        except NightshiftError as error:
            if kwargs.get("as_json"):
                emit({"error": type(error).__name__, "message": str(error)}, as_json=True)
            err.print(f"[bold red]{type(error).__name__}[/]", end=" ")
            err.print(str(error), markup=False, soft_wrap=True)
            raise typer.Exit(error.exit_code) from None

    return run


def emit(data: Mapping[str, Any], *, as_json: bool, shown: Table | str | None = None) -> None:
    """Print a result: one JSON line, or what people read."""
    if as_json:
        sys.stdout.write(json.dumps(_finite(data), default=_jsonable, allow_nan=False) + "\n")
        sys.stdout.flush()
    elif shown is not None:
        out.print(shown, markup=False)


def _finite(value: Any) -> Any:
    """The same with null for what is not known or not bounded yet: JSON has neither NaN nor infinity."""
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _jsonable(value: object) -> str:
    if isinstance(value, date | datetime):
        return value.isoformat()
    return str(value)


def table(title: str | None, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> Table:
    """A plain table; None shows as an empty cell."""
    made = Table(title=title, box=None, title_justify="left", header_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*("" if cell is None else str(cell) for cell in row))
    return made


def pairs(title: str | None, rows: Iterable[tuple[str, object]]) -> str:
    """One line a value, never wrapped, so that paths can be copied; None is left out."""
    kept = [(name, value) for name, value in rows if value not in (None, "")]
    width = max((len(name) for name, _ in kept), default=0)
    lines = [f"{name.ljust(width)}  {value}" for name, value in kept]
    return "\n".join([title, *lines] if title else lines)


def progress(*, quiet: bool = False) -> Progress:
    """A progress bar on stderr; silent where stderr is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=quiet or not err.is_terminal,
    )
