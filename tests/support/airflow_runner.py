"""What the tests ask of Airflow, in a process of its own: parse the DAGs, or run one of them here.

Prints one JSON line.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

HEAVY = (
    "pandas", "sklearn", "skops", "mlflow", "great_expectations", "duckdb", "scipy", "adbc_driver_postgresql",
)  # fmt: skip


def parsed() -> Any:
    """Every DAG of the bundle, as the DAG processor reads them."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import BundleDagBag

    bundle = DagBundlesManager().get_bundle("nightshift")
    bundle.initialize()
    return BundleDagBag(dag_folder=bundle.path, bundle_path=bundle.path, bundle_name="nightshift")


def parse() -> dict[str, Any]:
    """What parsing gives and costs; Airflow's own import is not counted."""
    import airflow.dag_processing.dagbag
    import airflow.sdk.execution_time.task_runner

    for name in airflow.sdk.__all__:
        getattr(airflow.sdk, name)
    before = time.process_time()
    bag = parsed()
    return {
        "cpu_seconds": time.process_time() - before,
        "dags": {dag_id: sorted(dag.task_ids) for dag_id, dag in bag.dags.items()},
        "errors": bag.import_errors,
        "heavy": [name for name in HEAVY if name in sys.modules],
    }


def test(dag_id: str, conf: str) -> dict[str, Any]:
    """One manual run of a DAG in this process, and how its tasks ended."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import sync_bag_to_db

    DagBundlesManager().sync_bundles_to_db()
    bag = parsed()
    sync_bag_to_db(bag, "nightshift", None)
    run = bag.dags[dag_id].test(run_conf=json.loads(conf))
    return {
        "state": str(run.state),
        "note": run.note,
        "tasks": {f"{ti.task_id}[{ti.map_index}]": str(ti.state) for ti in run.get_task_instances()},
        "titles": [ti.rendered_map_index for ti in run.get_task_instances() if ti.map_index >= 0],
        "events": events(),
    }


def events() -> list[dict[str, Any]]:
    """The asset events so far."""
    from airflow import settings
    from airflow.models.asset import AssetEvent

    with settings.Session() as session:
        return [
            {"asset": event.asset.name, "partition": event.partition_key, **event.extra}
            for event in session.query(AssetEvent).order_by(AssetEvent.id)
        ]


if __name__ == "__main__":
    command, *words = sys.argv[1:]
    told = parse() if command == "parse" else test(*words)
    print("\n" + json.dumps(told, default=str))
