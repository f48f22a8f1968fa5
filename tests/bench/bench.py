"""One big night, whole processes: `nightshift score` against a plain script, interleaved.

Wall ratios are medians of pairs. Above `--peer-up-to` rows the plain script is left out: it
needs all rows in memory. `per_row_vs_1m` is told instead, 1.0 where the time grows with the rows.
With `--before TREE`, a checkout of another commit over the same tables, the peer is its night instead:
the ratios tell what the commits between cost.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import psutil
import typer
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
TREE = HERE.parents[1]
HOME = TREE / ".nightshift" / "bench"
MEGABYTE = 1 << 20 if sys.platform == "darwin" else 1 << 10
REFERENCE_ROWS = 1_000_000
FEW_ROWS = 10_000
err = Console(stderr=True)


@dataclass(frozen=True)
class Used:
    """What one whole command used, with the processes it began; the server's share is not in it."""

    wall: float
    cpu: float
    peak_mb: float


@dataclass(frozen=True)
class Night:
    """One day that is loaded, and how processes reach it."""

    day: str
    model: str
    rows: int
    home: Path

    def nightshift(self, tree: Path = TREE) -> Used:
        """Score the day once more and publish it; raises RuntimeError unless every row is accounted for."""
        command = [
            sys.executable,
            "-c",
            "from pipeline.cli.main import app; app()",
            "score",
            "bench",
            "--json",
        ]
        environment = self.environment | {"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}
        used, printed = measured([*command, "--day", self.day], environment)
        run = json.loads(printed)
        if run["status"] != "published" or run["rows_scored"] + run["rows_fallback"] != self.rows:
            raise RuntimeError(f"the run must publish {self.rows} rows; got {printed}")
        return used

    def plain(self) -> Used:
        """Score the day with the plain script."""
        out = self.home / "plain.parquet"
        command = [sys.executable, str(HERE / "baseline.py"), "--day", self.day, "--model", self.model]
        return measured([*command, "--out", str(out)], {**self.environment, "BENCH_URL": self.url})[0]

    @property
    def url(self) -> str:
        """The warehouse of the benchmark."""
        command = [str(Path(sys.executable).with_name("nightshift")), "url"]
        return measured(command, self.environment)[1].strip()

    @property
    def environment(self) -> dict[str, str]:
        """As a user's shell has it: numerical libraries choose their threads themselves."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("NIGHTSHIFT_") and name != "OMP_NUM_THREADS"
        }
        return kept | {"NIGHTSHIFT_HOME": str(self.home), "NIGHTSHIFT_PROJECT": str(HERE / "project")}


def measured(command: Sequence[str], environment: dict[str, str]) -> tuple[Used, str]:
    """Run a process to its end; what it and those it began used, and what it printed."""
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    with process, ThreadPoolExecutor(1) as watch:
        peak = watch.submit(_peak_memory_mb, process.pid)
        printed = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command[0], printed)
    wall = time.perf_counter() - started
    peak_mb = max(peak.result(), usage.ru_maxrss / MEGABYTE)
    return Used(wall, usage.ru_utime + usage.ru_stime, peak_mb), printed


def _peak_memory_mb(pid: int) -> float:
    """What a process and its descendants hold together at most; looked at ten times a second."""
    peak = 0
    with suppress(psutil.NoSuchProcess):  # waited for meanwhile
        root = psutil.Process(pid)
        while root.status() != psutil.STATUS_ZOMBIE:
            peak = max(peak, sum(map(_resident, [root, *root.children(recursive=True)])))
            time.sleep(0.1)
    return peak / (1 << 20)


def _resident(process: psutil.Process) -> int:
    try:
        resident: int = process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0
    return resident


def prepared(rows: int, home: Path) -> Night:
    """The day with that many rows, loaded in a process of its own."""
    command = [sys.executable, str(HERE / "prepare.py"), "--rows", str(rows), "--home", str(home)]
    with err.status(f"{rows:,} rows: server, champion and rows"):
        made = json.loads(measured(command, {**os.environ, "OMP_NUM_THREADS": "1"})[1])
    return Night(day=made["day"], model=made["model"], rows=rows, home=home)


def middle(used: Sequence[Used]) -> Used:
    """Median wall and CPU, highest peak."""
    return Used(
        median(one.wall for one in used),
        median(one.cpu for one in used),
        max(one.peak_mb for one in used),
    )


def against_peer(night: Night, pairs: int, peer: str, run_peer: Callable[[], Used]) -> dict[str, Any]:
    """Interleaved pairs; ratios are medians of the pairs' ratios."""
    ours, others = [], []
    for pair in range(pairs):
        with err.status(f"{night.rows:,} rows, pair {pair + 1} of {pairs}"):
            ours.append(night.nightshift())
            others.append(run_peer())
    return {
        "rows": night.rows,
        "peer": peer,
        "wall_ratio": median(one.wall / other.wall for one, other in zip(ours, others, strict=True)),
        "cpu_ratio": median(one.cpu / other.cpu for one, other in zip(ours, others, strict=True)),
        **_figures(middle(ours)),
        "peer_seconds": middle(others),
    }


def _figures(used: Used) -> dict[str, float]:
    return {"peak_mb": used.peak_mb, "seconds": used.wall, "cpu_seconds": used.cpu}


def against_itself(night: Night, home: Path, pairs: int) -> dict[str, Any]:
    """Interleaved with 1M rows; the time per row counts without the fixed start-up, a night of few rows."""
    nights = [prepared(FEW_ROWS, home), prepared(REFERENCE_ROWS, home), night]
    rounds = []
    for pair in range(pairs):
        with err.status(f"{night.rows:,} rows beside {REFERENCE_ROWS:,}, round {pair + 1} of {pairs}"):
            rounds.append([one.nightshift() for one in nights])
    per_row = [
        (big.wall - few.wall) / (night.rows - FEW_ROWS) * (REFERENCE_ROWS - FEW_ROWS) / (one.wall - few.wall)
        for few, one, big in rounds
    ]
    few, one, big = (middle(column) for column in zip(*rounds, strict=True))
    return {
        "rows": night.rows,
        "peer": None,
        "wall_ratio": None,
        "cpu_ratio": None,
        **_figures(big),
        "per_row_vs_1m": median(per_row),
        "startup_seconds": few.wall,
        "seconds_1m": one.wall,
    }


def rounded(figures: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Figures as they are printed."""
    for name, value in figures.items():
        if isinstance(value, Used):
            yield from rounded({f"peer_{part}": figure for part, figure in asdict(value).items()})
        else:
            yield name, round(value, 3) if isinstance(value, float) else value


def shown(results: Sequence[dict[str, Any]]) -> Table:
    """One column a size, one line a figure."""
    names = list(dict.fromkeys(name for result in results for name in result))
    table = Table("", *(f"{result['rows']:,} rows" for result in results), box=None, header_style="bold")
    for name in names[1:]:
        table.add_row(name, *("–" if result.get(name) is None else str(result[name]) for result in results))
    return table


def main(
    rows: Annotated[list[int] | None, typer.Option(help="Rows of the night; may be given again.")] = None,
    pairs: Annotated[int, typer.Option(help="Interleaved pairs of processes.")] = 3,
    peer_up_to: Annotated[int, typer.Option(help="The plain script is run up to so many rows.")] = 2_000_000,
    before: Annotated[Path | None, typer.Option(help="A checkout whose nights are the peer.")] = None,
    home: Annotated[Path, typer.Option(help="Kept between calls: server, champion, rows.")] = HOME,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line on stdout.")] = False,
) -> None:
    """Measure whole nights of synthetic rows, 21 columns, 12 rules, 100 boosted trees."""
    results = []
    for count in rows or [REFERENCE_ROWS]:
        night = prepared(count, home)
        if before is not None:
            run_before = partial(night.nightshift, before.resolve())
            figures = against_peer(night, pairs, f"the night of {before}", run_before)
        elif count <= peer_up_to:
            figures = against_peer(night, pairs, "plain pandas script", night.plain)
        else:
            err.print(f"{count:,} rows: the plain script is left out, it needs all rows in memory")
            figures = against_itself(night, home, min(pairs, 1))
        results.append(dict(rounded(figures)))
    if as_json:
        typer.echo(json.dumps(results))
    else:
        Console().print(shown(results))
    subprocess.run(
        [str(Path(sys.executable).with_name("nightshift")), "down"],
        env={**os.environ, "NIGHTSHIFT_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        check=True,
    )


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    app()
