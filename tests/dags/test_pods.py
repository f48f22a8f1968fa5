"""What a job's resources ask of Kubernetes, as its executor builds the pods; no cluster is needed."""

from __future__ import annotations

from pathlib import Path

from support.airflow_here import airflow_variables, told_by_runner

PROJECT = Path(__file__).parents[1] / "support" / "toy_project"


def test_tasks_that_work_ask_for_what_is_declared_and_the_others_for_little(tmp_path: Path) -> None:
    variables = airflow_variables(tmp_path, "postgresql://nobody@127.0.0.1:9/none")
    variables |= {"NIGHTSHIFT_PROJECT": str(PROJECT), "NIGHTSHIFT_HOME": str(tmp_path)}
    variables |= {"AIRFLOW__CORE__EXECUTOR": "KubernetesExecutor"}
    pods = told_by_runner(variables, "pods", "toy__score")
    declared = {"cpu": "2", "memory": "1024Mi"}
    for works in ("extract", "validate", "score", "publish"):
        assert pods[works]["requests"] == pods[works]["limits"] == declared
    for waits in ("resolve_day", "wait_for_source", "plan", "report"):
        assert pods[waits]["requests"] == {"cpu": "500m", "memory": "512Mi"}
    assert all(pod["not_root"] for pod in pods.values())
