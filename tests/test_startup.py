"""What a night's process imports before it works: each of Airflow's tasks pays for it anew."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {
    "scipy", "sklearn", "skops", "duckdb", "mlflow", "great_expectations", "apprise", "airflow", "polars",
    "adbc_driver_postgresql",
}  # fmt: skip


def test_the_steps_of_a_night_import_nothing_heavy_before_they_need_it() -> None:
    code = "import sys, pipeline.steps; print(*sorted(name for name in sys.modules if '.' not in name))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY.isdisjoint(done.stdout.split())
