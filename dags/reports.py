"""The report pages behind Airflow's login: who may read a job's DAG may read its pages, and nobody else."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from functools import cache
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse

from dags.asked import DAG_KIND, mark_of_run
from pipeline.errors import RunError, UsageError
from pipeline.partition import Partition

if TYPE_CHECKING:
    from pipeline.environment import Environment
    from pipeline.monitoring.report.links import Links

_JOB = re.compile(r"[a-z_][a-z0-9_]{0,39}")
_RUN = re.compile(r"[A-Za-z0-9_.~:+-]{1,250}")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}

log = logging.getLogger(__name__)

# No page that describes the API: it would be open to everybody.
app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, default_response_class=HTMLResponse)


def _readable(job: str, request: Request, user: GetUserDep) -> str:
    """The job of the path; 404 for what is no job's name, 403 where its DAG may not be read."""
    if not _JOB.fullmatch(job):
        raise HTTPException(404)
    requires_access_dag("GET", param_dag_id=f"{job}{DAG_KIND}")(request, user)
    return job


def _readable_dag(dag_id: str, request: Request, user: GetUserDep) -> str:
    """The job of the path's DAG; 404 where that is none of ours."""
    if not dag_id.endswith(DAG_KIND):
        raise HTTPException(404)
    return _readable(dag_id.removesuffix(DAG_KIND), request, user)


def _name(text: str) -> str:
    if not _RUN.fullmatch(text):
        raise HTTPException(404)
    return text


ReadableJob = Annotated[str, Depends(_readable)]
JobOfDag = Annotated[str, Depends(_readable_dag)]


@app.get("/jobs")
def jobs(request: Request, user: GetUserDep) -> str:
    """All jobs whose DAG the user may read."""
    from pipeline import reporting

    dags = get_auth_manager().get_authorized_dag_ids(user=user, method="GET")
    only = {dag_id.removesuffix(DAG_KIND) for dag_id in dags if dag_id.endswith(DAG_KIND)}
    return reporting.jobs_page(_environment(), _links(request), only=only)


@app.get("/jobs/{job}")
def job_index(job: ReadableJob, request: Request) -> str:
    """A job over the weeks."""
    from pipeline import reporting

    return reporting.job_page(_environment(), job, _links(request))


@app.get("/jobs/{job}/dictionary")
def dictionary(job: ReadableJob, request: Request) -> str:
    """A job's data dictionary."""
    from pipeline import reporting

    return reporting.dictionary_page(_environment(), job, _links(request))


@app.get("/jobs/{job}/days/{day}")
def of_day(job: ReadableJob, day: str, request: Request) -> str:
    """What readers see of a day, else its newest run."""
    from pipeline import reporting

    return reporting.run_page(_environment(), job, Partition.parse(day), _links(request))


@app.get("/jobs/{job}/runs/{run_id}")
def of_run(job: ReadableJob, run_id: str, request: Request) -> str:
    """A run of that job, whatever became of it."""
    from pipeline import reporting

    return reporting.run_page_of(_environment(), _name(run_id), _links(request), job=job)


@app.get("/jobs/{job}/verdicts/{number:int}")
def of_verdict(job: ReadableJob, number: int, request: Request) -> str:
    """What the gate said of a challenger of that job."""
    from pipeline import reporting

    return reporting.verdict_page(_environment(), job, number, _links(request))


@app.get("/dags/{dag_id}/runs/{dag_run_id}")
def of_dag_run(job: JobOfDag, dag_run_id: str, request: Request) -> str:
    """The newest run that a DAG run has planned."""
    from pipeline import reporting

    mark = mark_of_run(_name(dag_run_id))
    return reporting.marked_run_page(_environment(), job, mark, _links(request))


@app.middleware("http")
async def _guarded(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await answer(request)
    response.headers.update(_HEADERS)
    return response


@app.exception_handler(UsageError)
def _not_there(request: Request, error: UsageError) -> Response:
    # Without the error's own words: they may name other jobs.
    return PlainTextResponse("There is no report here: no run of Nightshift is planned yet.", 404)


@app.exception_handler(RunError)
def _not_now(request: Request, error: RunError) -> Response:
    log.error("the page %s could not be read", request.url.path, exc_info=error)
    return PlainTextResponse("The warehouse cannot be read now; the API server's log tells why.", 503)


def _links(request: Request) -> Links:
    from pipeline.monitoring.report.links import Links

    # Where this app is mounted, below whatever path Airflow itself has.
    top = f"{request.scope['root_path']}/jobs"
    return Links(
        jobs=top,
        job=lambda name: f"{top}/{quote(name)}",
        dictionary=lambda name: f"{top}/{quote(name)}/dictionary",
        run=lambda name, run_id, _: f"{top}/{quote(name)}/runs/{quote(run_id)}",
    )


@cache
def _environment() -> Environment:
    from pipeline.environment import Environment
    from pipeline.settings import Settings

    return Environment(Settings())
