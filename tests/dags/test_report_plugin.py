"""The plugin of report pages, as every program of Airflow loads it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.airflow_here import airflow_variables

pytestmark = pytest.mark.airflow

_LOADED = """
import sys
import airflow.configuration, airflow.plugins_manager
before = set(sys.modules)
import dags.plugins.reports as plugin
print(*sorted(set(sys.modules) - before))
(app,) = plugin.Reports.fastapi_apps
print(app["url_prefix"], *(view["href"] for view in plugin.Reports.external_views))
"""


def loaded(home: Path, **variables: str) -> list[str]:
    """What the plugin imports, and where its pages are."""
    environment = airflow_variables(home, "postgresql://nobody@127.0.0.1/nowhere") | variables
    told = subprocess.run(
        [sys.executable, "-c", _LOADED], env=environment, capture_output=True, text=True, check=True
    )
    return told.stdout.splitlines()[-2:]


def test_it_imports_nothing_until_a_page_is_asked_for(tmp_path: Path) -> None:
    modules, _ = loaded(tmp_path)
    assert modules.split() == ["dags", "dags.plugins", "dags.plugins.reports"]


@pytest.mark.parametrize(
    ("base", "root"), [("http://localhost:8080", ""), ("https://a.example/air/", "/air")]
)
def test_its_pages_lie_below_the_path_that_airflow_has(tmp_path: Path, base: str, root: str) -> None:
    _, told = loaded(tmp_path, AIRFLOW__API__BASE_URL=base)
    assert told.split() == [
        "/nightshift",
        f"{root}/nightshift/dags/{{DAG_ID}}/runs/{{RUN_ID}}",
        f"{root}/nightshift/jobs",
    ]
