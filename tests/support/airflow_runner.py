"""What the tests ask of Airflow, in a process of its own: parse the DAGs, or run one of them here.

Prints one JSON line.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HEAVY = (
    "pandas", "sklearn", "skops", "mlflow", "great_expectations", "duckdb", "scipy", "adbc_driver_postgresql",
)  # fmt: skip


_PLAIN = """
from airflow.sdk import DAG, Asset, Param, task

with DAG("plain"):
    task(lambda: None, task_id="one")()
"""


def parsed() -> Any:
    """Every DAG of the bundle, as the DAG processor reads them."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import BundleDagBag

    bundle = DagBundlesManager().get_bundle("nightshift")  # type: ignore[no-untyped-call]
    bundle.initialize()
    return BundleDagBag(dag_folder=bundle.path, bundle_path=bundle.path, bundle_name="nightshift")


def parse() -> dict[str, Any]:
    """What parsing gives and costs; what any DAG makes Airflow import is not counted."""
    from airflow.dag_processing.dagbag import BundleDagBag

    with TemporaryDirectory() as folder:
        Path(folder, "plain.py").write_text(_PLAIN)
        BundleDagBag(dag_folder=folder, bundle_path=Path(folder), bundle_name="plain")
    before = time.process_time()
    bag = parsed()
    return {
        "cpu_seconds": time.process_time() - before,
        "dags": {dag_id: sorted(dag.task_ids) for dag_id, dag in bag.dags.items()},
        "errors": bag.import_errors,
        "heavy": [name for name in HEAVY if name in sys.modules],
    }


def test(*asked: str) -> dict[str, Any]:
    """Manual runs in this process, one after the other, of a DAG id and a JSON conf each; how they ended."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import sync_bag_to_db

    DagBundlesManager().sync_bundles_to_db()  # type: ignore[no-untyped-call]
    sync_bag_to_db(parsed(), "nightshift", None)
    runs = []
    for dag_id, conf in zip(asked[::2], asked[1::2], strict=True):
        dag = parsed().dags[dag_id]  # anew: a test leaves its conf in the DAG's params
        dag.deadline = None  # DAG.test looks for its record by a value of another type, and fails
        runs.append(ended(dag.test(run_conf=json.loads(conf)).run_id))
    return {"runs": runs}


def pods(dag_id: str) -> dict[str, Any]:
    """What the KubernetesExecutor would ask for each task of a DAG, from our pod template."""
    from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
    from airflow.serialization.serialized_objects import DagSerialization

    template = Path(__file__).resolve().parents[2] / "deploy" / "pod.yaml"
    scheduled = DagSerialization.from_dict(DagSerialization.to_dict(parsed().dags[dag_id]))
    asked = {}
    for task in scheduled.tasks:
        pod = PodGenerator.construct_pod(
            dag_id=dag_id,
            task_id=task.task_id,
            pod_id="pod",
            try_number=1,
            kube_image="nightshift:latest",
            date=None,
            args=["airflow"],
            pod_override_object=PodGenerator.from_obj(task.executor_config),
            base_worker_pod=PodGenerator.deserialize_model_file(str(template)),
            namespace="nightshift",
            scheduler_job_id="1",
        )
        (container,) = pod.spec.containers
        asked[task.task_id] = {
            "requests": container.resources.requests,
            "limits": container.resources.limits,
            "not_root": pod.spec.security_context.run_as_non_root,
        }
    return asked


def ended(run_id: str) -> dict[str, Any]:
    """How a DAG run and its tasks ended, and every asset event so far."""
    from airflow.models.asset import AssetEvent
    from airflow.models.dagrun import DagRun
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    from dags.plugins.notes import on_dag_run_success

    with create_session() as session:
        run = session.query(DagRun).filter_by(run_id=run_id).one()
        # Listeners of DAG.test are given a DAG run without a session; the scheduler's has one.
        on_dag_run_success(run, "")
        session.flush()
        notes = session.query(XComModel.value).filter_by(run_id=run_id, key="note")
        events = session.query(AssetEvent).order_by(AssetEvent.id)
        return {
            "state": str(run.state),
            "note": run.note,
            "notes": [note for (note,) in notes],
            "tasks": {f"{ti.task_id}[{ti.map_index}]": str(ti.state) for ti in run.task_instances},
            "titles": [ti.rendered_map_index for ti in run.task_instances if ti.map_index >= 0],
            "events": [
                {"asset": event.asset.name, "partition": event.partition_key, **event.extra}
                for event in events
            ],
        }


if __name__ == "__main__":
    command, *words = sys.argv[1:]
    commands: dict[str, Callable[..., dict[str, Any]]] = {"parse": parse, "test": test, "pods": pods}
    told = commands[command](*words)
    print("\n" + json.dumps(told, default=str))
