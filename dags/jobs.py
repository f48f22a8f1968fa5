"""All DAGs of one job, by DAG id; raises DeclarationError with every fault of its files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dags.nightly import score_dag
from dags.outcomes import outcomes_dag
from dags.rollout import rollout_dag
from dags.scoring_queue import requests_dag
from dags.training import training_dag
from pipeline.declaration import load_job
from pipeline.settings import Settings

if TYPE_CHECKING:
    from airflow.sdk import DAG


def dags_of(name: str) -> dict[str, DAG]:
    """The job's DAGs, one a kind."""
    job = load_job(Settings().project, name)
    labelled = (outcomes_dag, training_dag) if job.declaration.outcomes else ()
    dags = [score_dag(job), rollout_dag(job), *(dag_of(job) for dag_of in labelled)]
    if job.declaration.requests:
        dags.append(requests_dag(job, job.declaration.requests))
    return {dag.dag_id: dag for dag in dags}
