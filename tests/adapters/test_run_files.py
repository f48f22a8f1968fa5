"""A run's files: sealed by their manifests, one snapshot for good, in a folder and in an object store."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.publishing import make_job, make_run, parquet_rows

from pipeline.adapters import run_files
from pipeline.adapters.store import Store, sha256_of
from pipeline.errors import FatalError, TransientError
from pipeline.run import Parameter, RuleResult, Run, Snapshot, Verdicts

RUN = make_run()
PARAMETERS: dict[str, Parameter] = {
    "number": 3,
    "share": 0.25,
    "text": "a",
    "yes": True,
    "day": date(2024, 1, 25),
    "instant": datetime(2024, 1, 25, 2, 3, 4, 567, UTC),
    "nothing": None,
}


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    url = str(tmp_path / "store") if request.param == "local" else f"memory://{uuid4().hex}/prefix"
    return Store.at(url, tmp_path / "state")


def snapshot_in(folder: Path, ids: Sequence[int] = (1, 2, 3), **changes: object) -> Snapshot:
    """A snapshot with one history as the extract leaves it; its fingerprint tells the ids."""
    (folder / "history/f1").mkdir(parents=True)
    pq.write_table(pa.table({"id": list(ids)}), folder / "snapshot.parquet")
    pq.write_table(pa.table({"kind": ["a"]}), folder / "history/f1/kinds.parquet")
    given: dict[str, object] = {
        "path": folder / "snapshot.parquet",
        "rows": len(ids),
        "bytes": 24,
        "fingerprint": "".join(map(str, ids)).ljust(64, "0"),
        "history": {"history/f1/kinds": folder / "history/f1/kinds.parquet"},
        "parameters": PARAMETERS,
        "warnings": ("extra column",),
        "proved": False,
    }
    return Snapshot(**(given | changes))  # type: ignore[arg-type]


def sealed(store: Store, ids: Sequence[int] = (1, 2, 3), run: Run = RUN) -> None:
    with store.workspace() as folder:
        run_files.seal_snapshot(store, run, snapshot_in(folder, ids), folder)


def ids_of(snapshot: Snapshot | None) -> list[int]:
    assert snapshot is not None
    ids: list[int] = pq.read_table(snapshot.path)["id"].to_pylist()
    return ids


def test_a_sealed_snapshot_comes_back_as_it_was(store: Store, tmp_path: Path) -> None:
    sealed(store)
    found = run_files.sealed_snapshot(store, RUN, tmp_path / "cache")
    assert ids_of(found) == [1, 2, 3]
    assert found.parameters == PARAMETERS
    assert (found.rows, found.bytes, found.warnings, found.proved) == (3, 24, ("extra column",), False)
    assert found.fingerprint == "123".ljust(64, "0")
    assert pq.read_table(found.history["history/f1/kinds"]).to_pylist() == [{"kind": "a"}]


def test_a_snapshot_without_its_manifest_is_not_sealed(store: Store, tmp_path: Path) -> None:
    with store.workspace() as folder:
        snapshot_in(folder)
        store.seal_folder(folder, store.run_folder(RUN) / "snapshot-123")
    assert run_files.load_snapshot(store, RUN, tmp_path) is None
    with pytest.raises(FatalError, match="snapshot of run run-1 must be sealed"):
        run_files.sealed_snapshot(store, RUN, tmp_path)


def test_a_snapshot_of_the_same_content_may_be_sealed_again(store: Store, tmp_path: Path) -> None:
    sealed(store)
    sealed(store)
    assert ids_of(run_files.load_snapshot(store, RUN, tmp_path)) == [1, 2, 3]


def test_a_sealed_snapshot_is_never_replaced_by_other_content(store: Store, tmp_path: Path) -> None:
    sealed(store)
    with pytest.raises(TransientError, match="run-1 must have one snapshot"):
        sealed(store, [7, 8])
    assert ids_of(run_files.load_snapshot(store, RUN, tmp_path)) == [1, 2, 3]


def test_each_run_has_a_snapshot_of_its_own(store: Store, tmp_path: Path) -> None:
    other = make_run(run_id="run-2", run_no=2)
    sealed(store)
    sealed(store, [7, 8], other)
    assert ids_of(run_files.load_snapshot(store, RUN, tmp_path / "a")) == [1, 2, 3]
    assert ids_of(run_files.load_snapshot(store, other, tmp_path / "b")) == [7, 8]


def seal_verdicts(
    store: Store, reasons: Sequence[tuple[int, str]], results: Sequence[RuleResult] = ()
) -> Verdicts:
    with store.workspace() as folder:
        rows = [{"row": row, "verdict": verdict} for row, verdict in reasons]
        schema = pa.schema([("row", pa.int64()), ("verdict", pa.string())])
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), path := folder / "verdicts.parquet")
        verdicts = Verdicts(path, rows=3, good=1, quarantined=1, withheld=1, results=tuple(results))
        run_files.seal_verdicts(store, RUN, verdicts)
    return verdicts


def test_sealed_verdicts_come_back_as_they_were(store: Store, tmp_path: Path) -> None:
    results = (
        RuleResult("engine:key", None, "critical", success=False, failed_rows=2, observed="2"),
        RuleResult("in_set", "kind", "warning", success=True, failed_rows=0),
    )
    verdicts = seal_verdicts(store, [(0, "quarantined"), (2, "withheld")], results)
    found = run_files.load_verdicts(store, RUN, tmp_path)
    assert pq.read_table(found.path)["row"].to_pylist() == [0, 2]
    assert (found.rows, found.good, found.quarantined, found.withheld) == (3, 1, 1, 1)
    assert found.results == verdicts.results
    assert run_files.results_json(found.results)[0]["observed"] == "2"


def test_verdicts_that_are_not_sealed_are_said_to_be_gone(store: Store, tmp_path: Path) -> None:
    with pytest.raises(FatalError, match="verdicts of run run-1 must be sealed"):
        run_files.load_verdicts(store, RUN, tmp_path)


def seal_part(store: Store, part: int, ids: Sequence[int], unanswered: Sequence[int] = ()) -> None:
    with store.workspace() as folder:
        rows = pa.Table.from_batches([parquet_rows(make_job(), RUN, ids)])
        pq.write_table(rows.replace_schema_metadata({"nightshift.run_no": "1"}), folder / "part")
        pq.write_table(pa.table({"row": pa.array(unanswered, pa.int64())}), folder / "rest")
        store.seal(folder / "part", run_files.part_file(store, RUN, part))
        store.seal(folder / "rest", run_files.unanswered_file(store, RUN, part))


def test_the_proof_reads_every_part_and_every_withheld_row(store: Store, tmp_path: Path) -> None:
    sealed(store)
    seal_verdicts(store, [(0, "quarantined"), (4, "withheld"), (4, "withheld")])
    seal_part(store, 0, [1, 2], unanswered=[5])
    seal_part(store, 1, [3], unanswered=[6, 7])
    files = run_files.fetch_for_proof(store, RUN, [0, 1], tmp_path)
    assert pq.read_table(files.withheld)["row"].to_pylist() == [4, 4, 5, 6, 7]
    assert pq.read_table(files.snapshot)["id"].to_pylist() == [1, 2, 3]
    assert [pq.read_table(part)["id"].to_pylist() for part in files.parts] == [[1, 2], [3]]


@pytest.mark.parametrize("parts", [[[1, 2, 3]], [[1, 2], [], [3]]], ids=["one part", "three parts"])
def test_the_whole_file_is_the_parts_in_their_order(
    store: Store, tmp_path: Path, parts: list[list[int]]
) -> None:
    for number, ids in enumerate(parts):
        seal_part(store, number, ids)
    local = [store.fetch(run_files.part_file(store, RUN, number), tmp_path) for number in range(len(parts))]
    sha256 = run_files.seal_predictions(store, RUN, local, tmp_path)
    found = store.fetch(run_files.predictions_file(store, RUN), tmp_path / "found")
    table = pq.read_table(found)
    assert table["id"].to_pylist() == [1, 2, 3]
    assert table.schema.names == [name for name in make_job().output_columns() if name != "day"]
    assert table.schema.metadata[b"nightshift.run_no"] == b"1"
    assert sha256 == sha256_of(found)
    assert local[0].exists()
