"""Workers that have a night's libraries before a task asks for them, and can use them after the fork."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.airflow_here import airflow_variables

FORKED = """
import os, sys
from unittest.mock import patch
from airflow.executors.local_executor import LocalExecutor
from dags.executor import WarmLocalExecutor

def fork_a_worker(executor):
    assert {"pandas", "great_expectations", "sklearn", "duckdb"} <= sys.modules.keys()
    assert "polars" not in sys.modules
    child = os.fork()
    if child == 0:
        import duckdb, numpy as np, pandas as pd
        from sklearn.linear_model import LogisticRegression
        square = np.random.default_rng(1).normal(size=(400, 400))
        inverse = np.linalg.inv(square)
        frame = pd.DataFrame({"x": inverse[0], "y": square[0] > 0})
        LogisticRegression().fit(frame[["x"]], frame.y)
        rows = duckdb.sql("select count(*) from range(100000) where range % 3 = 0").fetchall()
        os._exit(0 if rows == [(33334,)] else 1)
    assert os.waitpid(child, 0)[1] == 0
    print("worked")

with patch.object(LocalExecutor, "start", fork_a_worker):
    WarmLocalExecutor(parallelism=1).start()
"""


def test_a_worker_is_forked_with_the_libraries_and_works_with_them(tmp_path: Path) -> None:
    variables = airflow_variables(tmp_path, "postgresql://nobody@127.0.0.1:9/none")
    done = subprocess.run(
        [sys.executable, "-c", FORKED],
        env=variables,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.endswith("worked\n"), done.stdout + done.stderr
    assert "great_expectations" not in done.stdout + done.stderr
