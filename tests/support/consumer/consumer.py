"""A DAG that another team writes: it starts when a day's predictions are there, once for each day."""

from __future__ import annotations

from airflow.sdk import DAG, Asset, PartitionedAssetTimetable, get_current_context, task

with DAG(
    "consumer",
    schedule=PartitionedAssetTimetable(
        assets=Asset(name="predictions.toy", uri="nightshift://predictions/toy")
    ),
    catchup=False,
):

    @task
    def use() -> str:
        """Which day is there."""
        return str(get_current_context()["dag_run"].partition_key)

    use()
