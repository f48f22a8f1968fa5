"""What a job's resources ask of Kubernetes, as its executor builds the pods; no cluster is needed."""

from __future__ import annotations

from support.airflow_here import Airflow, told_by_runner


def test_tasks_that_work_ask_for_what_is_declared_and_the_others_for_little(airflow: Airflow) -> None:
    kubernetes = {**airflow.variables, "AIRFLOW__CORE__EXECUTOR": "KubernetesExecutor"}
    pods = told_by_runner(kubernetes, "pods", "toy__score")
    declared = {"cpu": "2", "memory": "1024Mi"}
    for works in ("extract", "validate", "score", "publish"):
        assert pods[works]["requests"] == pods[works]["limits"] == declared
    for waits in ("resolve_day", "wait_for_source", "plan", "report"):
        assert pods[waits]["requests"] == {"cpu": "500m", "memory": "512Mi"}
    assert all(pod["not_root"] for pod in pods.values())
