"""`<job>__rollout`: a version beside the champion, from a form; one call into pipeline.rollouts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import DAG, Param, task

from dags import tasks
from dags.common import dag_settings

if TYPE_CHECKING:
    from pipeline.job import Job


def rollout_dag(job: Job) -> DAG:
    """roll_out, by hand alone."""
    declared = job.declaration
    with DAG(
        f"{job.name}__rollout",
        description=f"A version beside the champion. {declared.description}",
        schedule=None,
        max_active_runs=1,
        params=_form(job),
        **dag_settings(job, _does(job)),
    ) as dag:
        task(tasks.roll_out)(job.name)
    return dag


def _form(job: Job) -> dict[str, Param]:
    approvers = list(job.declaration.owners.approvers)
    return {
        "action": Param(
            "shadow",
            type="string",
            enum=["shadow", "canary", "ab", "stop"],
            title="Action",
            description_md="`shadow`: scores the same inputs, answers no reader. `canary`, `ab`: answers a "
            "share of the keys. `stop`: the champion answers alone from the next night on.",
        ),
        "version": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Model version",
            description_md="A registered version; left empty: the one that runs goes on.",
        ),
        "share": Param(
            None,
            type=["null", "number"],
            exclusiveMinimum=0,
            exclusiveMaximum=1,
            title="Share of the keys",
            description_md="Of a canary or an A/B test; left empty: "
            f"{job.declaration.rollout.canary_share} and 0.5.",
        ),
        "approved_by": Param(
            None,
            type=["null", "string"],
            enum=[None, *approvers],
            title="Approved by",
            description_md="Who agreed; a canary and an A/B test need an approver.",
        ),
        "reason": Param("", type="string", title="Reason", description_md="Why; kept for ever."),
    }


def _does(job: Job) -> str:
    return (
        "Starts, changes or stops what runs beside the champion, as `nightshift rollout` does; the nights "
        f"that are planned from then on take part. `nightshift rollout {job.name} status` compares the two."
    )
