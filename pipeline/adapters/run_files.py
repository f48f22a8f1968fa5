"""A run's files between its stages: snapshot, verdicts, prediction parts; each sealed by its manifest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter
from upath import UPath

from pipeline.adapters.store import Store, sha256_of
from pipeline.errors import FatalError, TransientError
from pipeline.monitoring.profile import Profile, merge
from pipeline.monitoring.profile_file import loads
from pipeline.run import BATCH_ROWS, WITHHELD, RuleResult, Run, Snapshot, Verdicts

_RESULTS = TypeAdapter(tuple[RuleResult, ...])


def seal_snapshot(store: Store, run: Run, snapshot: Snapshot, folder: Path) -> UPath:
    """Put a snapshot written in `folder` into the run's folder; gives its manifest, which comes last.

    A run has one snapshot for good: raises TransientError when another attempt has sealed other content.
    """
    if snapshot.parameters:
        table = pa.table({name: pa.array([value]) for name, value in snapshot.parameters.items()})
        pq.write_table(table, folder / "parameters.parquet")
    # Two attempts at once write to the same place only if they read the same content.
    place = f"snapshot-{snapshot.fingerprint[:16]}"
    manifest = {
        "folder": place,
        "rows": snapshot.rows,
        "bytes": snapshot.bytes,
        "fingerprint": snapshot.fingerprint,
        "history": sorted(snapshot.history),
        "has_parameters": bool(snapshot.parameters),
        "warnings": snapshot.warnings,
        "proved": snapshot.proved,
        "digests": dict(snapshot.digests),
        "questions": dict(snapshot.questions),
    }
    target = store.run_folder(run) / "snapshot.json"
    store.seal_folder(folder, target.parent / place)
    with _written(store, manifest) as local:
        is_first = store.seal_once(local, target)
    if not is_first and _read(target)["fingerprint"] != snapshot.fingerprint:
        raise TransientError(
            f"run {run.run_id} must have one snapshot; an earlier attempt has sealed other content. "
            "Go on with the sealed one"
        )
    return target


def load_snapshot(store: Store, run: Run, cache: Path) -> Snapshot | None:
    """The run's sealed snapshot with local paths (`cache` takes copies of remote files); None if unsealed."""
    try:
        manifest = _read(store.run_folder(run) / "snapshot.json")
    except FileNotFoundError:
        return None
    return _snapshot(store.run_folder(run), manifest, store.fetch, cache)


def held_snapshot(store: Store, run: Run, folder: Path) -> Snapshot:
    """The run's sealed snapshot in `folder`, there even when retention removes the run's.

    Raises FileNotFoundError when it is gone.
    """
    manifest = _read(store.run_folder(run) / "snapshot.json")
    return _snapshot(store.run_folder(run), manifest, store.hold, folder)


def _snapshot(
    run_folder: UPath, manifest: Mapping[str, Any], local: Callable[[UPath, Path], Path], folder: Path
) -> Snapshot:
    source = run_folder / manifest["folder"]
    parameters: dict[str, Any] = {}
    if manifest["has_parameters"]:
        parameters = pq.read_table(local(source / "parameters.parquet", folder)).to_pylist()[0]
    return Snapshot(
        path=local(source / "snapshot.parquet", folder),
        rows=manifest["rows"],
        bytes=manifest["bytes"],
        fingerprint=manifest["fingerprint"],
        history={
            name: local(source / f"{name}.parquet", folder / Path(name).parent)
            for name in manifest["history"]
        },
        parameters=parameters,
        warnings=tuple(manifest["warnings"]),
        proved=manifest["proved"],
        digests=manifest.get("digests", {}),
        questions=manifest.get("questions", {}),
    )


def questions_of(store: Store, run: Run) -> Mapping[str, str]:
    """What the run's sealed snapshot was asked (see `Snapshot.questions`); nothing where there is none."""
    try:
        held: Mapping[str, str] = _read(store.run_folder(run) / "snapshot.json").get("questions", {})
    except FileNotFoundError:
        return {}
    return held


def sealed_snapshot(store: Store, run: Run, cache: Path) -> Snapshot:
    """The run's sealed snapshot; raises FatalError when it is gone."""
    snapshot = load_snapshot(store, run, cache)
    if snapshot is None:
        raise FatalError(
            f"the snapshot of run {run.run_id} must be sealed; it is gone from the store. Score the day "
            f"under a new run: nightshift score {run.job} --day {run.partition}"
        )
    return snapshot


def seal_verdicts(store: Store, run: Run, verdicts: Verdicts) -> None:
    """Put the verdicts' file into the run's folder; its manifest comes last."""
    target = store.run_folder(run)
    store.seal(verdicts.path, target / "verdicts.parquet")
    counts = {name: getattr(verdicts, name) for name in ("rows", "good", "quarantined", "withheld")}
    results = _RESULTS.dump_python(verdicts.results, mode="json")
    with _written(store, {**counts, "results": results}) as local:
        store.seal(local, target / "verdicts.json")


def load_verdicts(store: Store, run: Run, cache: Path) -> Verdicts:
    """The run's sealed verdicts with a local path; raises FatalError when they are gone."""
    source = store.run_folder(run)
    try:
        manifest = _read(source / "verdicts.json")
    except FileNotFoundError:
        raise FatalError(
            f"the verdicts of run {run.run_id} must be sealed; they are gone from the store"
        ) from None
    results = _RESULTS.validate_python(manifest.pop("results"))
    return Verdicts(path=store.fetch(source / "verdicts.parquet", cache), results=results, **manifest)


def results_json(results: Sequence[RuleResult]) -> list[dict[str, Any]]:
    """Rule results as the runs table keeps them."""
    return [asdict(result) for result in results]


def part_file(store: Store, run: Run, part: int) -> UPath:
    """The predictions of one part."""
    return store.run_folder(run) / f"part-{part:05d}.parquet"


def unanswered_file(store: Store, run: Run, part: int) -> UPath:
    """The snapshot rows of one part that no step of a chain answered."""
    return store.run_folder(run) / f"unanswered-{part:05d}.parquet"


def profile_file(store: Store, run: Run, part: int) -> UPath:
    """The profile of one part."""
    return store.run_folder(run) / f"profile-{part:05d}.json.zst"


def load_profile(store: Store, run: Run, parts: int) -> Profile | None:
    """The profile of a run's parts together; None where one is missing, FatalError where one is broken."""
    try:
        return merge([loads(profile_file(store, run, part).read_bytes()) for part in range(parts)])
    except FileNotFoundError:
        return None


def predictions_file(store: Store, run: Run) -> UPath:
    """The run's whole predictions, written once."""
    return store.run_folder(run) / "predictions.parquet"


def between_stages(store: Store, run: Run) -> list[UPath]:
    """What a run left for its own stages: snapshot, verdicts and parts; the manifest that seals it first."""
    folder = store.run_folder(run)
    patterns = ("snapshot.json", "snapshot-*", "verdicts.json", "verdicts.parquet", "part-*", "unanswered-*")
    return [place for pattern in patterns for place in sorted(folder.glob(pattern), key=str)]


@contextmanager
def _written(store: Store, manifest: Mapping[str, Any]) -> Iterator[Path]:
    with store.workspace() as folder:
        local = folder / "manifest.json"
        local.write_text(json.dumps(manifest, indent=1))
        yield local


def _read(manifest: UPath) -> dict[str, Any]:
    held: dict[str, Any] = json.loads(manifest.read_text())
    return held


@dataclass(frozen=True)
class ProofFiles:
    """Local files that the proof of conservation reads."""

    snapshot: Path
    withheld: Path
    parts: list[Path]


def fetch_for_proof(store: Store, run: Run, parts: Sequence[int], folder: Path) -> ProofFiles:
    """The snapshot, the prediction parts, and one file with every withheld row's position.

    Raises FatalError when a sealed file is gone.
    """
    snapshot = sealed_snapshot(store, run, folder)
    verdicts = pq.read_table(load_verdicts(store, run, folder).path, columns=["row", "verdict"])
    withheld = [verdicts.filter(pc.field("verdict") == WITHHELD).select(["row"])]
    withheld += [pq.read_table(store.fetch(unanswered_file(store, run, part), folder)) for part in parts]
    path = folder / "withheld.parquet"
    pq.write_table(pa.concat_tables(withheld), path)
    return ProofFiles(
        snapshot=snapshot.path,
        withheld=path,
        parts=[store.fetch(part_file(store, run, part), folder) for part in parts],
    )


def seal_predictions(store: Store, run: Run, parts: Sequence[Path], folder: Path) -> str:
    """Write the run's whole predictions once, in the order of the parts (at least one); their sha256."""
    local = folder / "predictions.parquet"
    if len(parts) == 1:
        shutil.copyfile(parts[0], local)
    else:
        with pq.ParquetWriter(local, pq.read_schema(parts[0]), compression="zstd") as writer:
            for part in parts:
                for batch in pq.ParquetFile(part).iter_batches(BATCH_ROWS):
                    writer.write_batch(batch)
    sha256 = sha256_of(local)
    store.seal(local, predictions_file(store, run))
    return sha256
