"""Report pages in Airflow's UI: a tab on every DAG run, and all jobs in the menu."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

_PREFIX = "/nightshift"
# Airflow may lie below a path of its own, behind a proxy.
_ROOT = urlsplit(conf.get("api", "base_url", fallback="/")).path.rstrip("/") + _PREFIX


async def pages(scope: Scope, receive: Receive, send: Send) -> None:
    """The pages' app, imported when one is asked for: every program of Airflow loads all plugins."""
    from dags.reports import app

    await app(scope, receive, send)


class Reports(AirflowPlugin):
    """Registers the pages and where the UI shows them."""

    name = "nightshift_reports"
    fastapi_apps = [{"app": pages, "url_prefix": _PREFIX, "name": "Nightshift reports"}]  # noqa: RUF012
    external_views = [  # noqa: RUF012 - Airflow wants lists
        {
            "name": "Report",
            "href": f"{_ROOT}/dags/{{DAG_ID}}/runs/{{RUN_ID}}",
            "destination": "dag_run",
            "url_route": "nightshift-report",
        },
        {
            "name": "Nightshift",
            "href": f"{_ROOT}/jobs",
            "destination": "nav",
            "category": "browse",
            "url_route": "nightshift-jobs",
        },
    ]
