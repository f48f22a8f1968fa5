"""What a job's declared resources mean to Kubernetes; nothing where another executor runs the tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import conf

if TYPE_CHECKING:
    from pipeline.job import Resources


def pod_override(resources: Resources) -> dict[str, Any] | None:
    """Requests and limits of the pods of a job's working tasks."""
    if "KubernetesExecutor" not in conf.get("core", "executor"):
        return None
    from kubernetes.client import models as k8s

    amount = {"cpu": str(resources.cpus), "memory": f"{resources.memory_mb}Mi"}
    container = k8s.V1Container(
        name="base", resources=k8s.V1ResourceRequirements(requests=amount, limits=amount)
    )
    return {"pod_override": k8s.V1Pod(spec=k8s.V1PodSpec(containers=[container]))}
