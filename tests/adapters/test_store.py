"""Files: each is in its place as a whole or not at all, in a folder and in an object store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from support.publishing import DAY, make_job, make_run, parquet_rows

from pipeline.adapters.store import Store, sha256_of


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return Store.at(str(tmp_path / "store"), tmp_path / "state")


@pytest.fixture
def remote(tmp_path: Path) -> Store:
    return Store.at(f"memory://bucket-{uuid4().hex}/prefix", tmp_path / "state")


@pytest.fixture(params=["local", "remote"])
def store(request: pytest.FixtureRequest) -> Store:
    found: Store = request.getfixturevalue(request.param)
    return found


def written(folder: Path, text: str, name: str = "file.txt") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def put(store: Store, name: str, text: str) -> None:
    with store.workspace() as folder:
        store.seal(written(folder, text), store.root / name)


def test_a_sealed_file_has_its_content_and_replaces_an_older_one(store: Store) -> None:
    for text in ("old", "new"):
        put(store, "a/b/c.txt", text)
        assert (store.root / "a/b/c.txt").read_text() == text


def test_a_folder_is_sealed_with_its_subfolders(store: Store, tmp_path: Path) -> None:
    written(tmp_path / "made", "1", "one.txt")
    written(tmp_path / "made", "2", "deep/er/two.txt")
    store.seal_folder(tmp_path / "made", store.root / "there")
    assert (store.root / "there/one.txt").read_text() == "1"
    assert (store.root / "there/deep/er/two.txt").read_text() == "2"


def test_what_is_sealed_once_stays(store: Store) -> None:
    target = store.root / "a/once.txt"
    for text, first in (("one", True), ("two", False)):
        with store.workspace() as folder:
            assert store.seal_once(written(folder, text), target) is first
    assert target.read_text() == "one"


def test_of_many_that_seal_once_one_wins_and_its_content_is_whole(local: Store) -> None:
    target = local.root / "once.txt"

    def attempt(number: int) -> bool:
        with local.workspace() as folder:
            return local.seal_once(written(folder, str(number) * 100_000), target)

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(attempt, range(8)))
    assert won.count(True) == 1
    assert target.read_text() == str(won.index(True)) * 100_000


def test_a_copy_replaces_the_target_and_leaves_the_source(store: Store) -> None:
    put(store, "runs/source.txt", "new")
    put(store, "current/target.txt", "old and longer")
    store.copy(store.root / "runs/source.txt", store.root / "current/target.txt")
    assert (store.root / "current/target.txt").read_text() == "new"
    assert (store.root / "runs/source.txt").read_text() == "new"


def test_a_stored_file_has_a_local_path(store: Store, tmp_path: Path) -> None:
    put(store, "a/b.txt", "text")
    found = store.fetch(store.root / "a/b.txt", tmp_path / "cache/deep")
    assert found.read_text() == "text"
    assert found.name == "b.txt"


def test_a_missing_file_is_said_to_be_missing(store: Store, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.fetch(store.root / "none.txt", tmp_path).read_text()
    with pytest.raises(FileNotFoundError):
        store.copy(store.root / "none.txt", store.root / "target.txt")


def test_sealing_is_one_rename_on_one_file_system(local: Store) -> None:
    with local.workspace() as folder:
        path = written(folder, "text")
        before = path.stat()
        local.seal(path, target := local.root / "a/b.txt")
        after = Path(target.path).stat()
        assert (before.st_dev, before.st_ino) == (after.st_dev, after.st_ino)
        assert not path.exists()


@pytest.mark.parametrize("name", ["with space", "100%", "a#b", "q?x", "[b]*", "ümläut"])
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    store = Store.at(str(tmp_path / name), tmp_path / "state")
    put(store, "a/b.txt", "text")
    assert (tmp_path / name / "a/b.txt").read_text() == "text"
    assert store.fetch(store.root / "a/b.txt", tmp_path).read_text() == "text"


def test_a_file_url_is_a_folder(tmp_path: Path) -> None:
    store = Store.at(f"file://{tmp_path}/store", tmp_path / "state")
    put(store, "a.txt", "text")
    assert store.is_local
    assert (tmp_path / "store/a.txt").read_text() == "text"


def test_unfinished_files_lie_outside_the_dataset_and_are_gone_after_an_error(store: Store) -> None:
    folders: list[Path] = []

    def fail() -> None:
        with store.workspace() as folder:
            folders.append(written(folder, "unfinished", "deep/file.txt"))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert "predictions" not in folders[0].parts
    assert not folders[0].exists()
    assert list(store.scratch.iterdir()) == []


def make_old(folder: Path, hours: float = 2) -> None:
    then = time.time() - hours * 3600
    os.utime(folder, (then, then))


def test_what_a_killed_process_left_behind_is_removed_an_hour_later(local: Store) -> None:
    code = "import sys, os, signal; from pathlib import Path; from pipeline.adapters.store import Store\n"
    code += "with Store.at(sys.argv[1], Path()).workspace() as folder:\n"
    code += "    (folder / 'rows').write_text('x'); os.kill(os.getpid(), signal.SIGKILL)"
    died = subprocess.run([sys.executable, "-c", code, local.root.path], check=False)
    assert died.returncode == -signal.SIGKILL
    (left,) = local.scratch.iterdir()
    with local.workspace():
        assert left.exists()
    make_old(left)
    with local.workspace():
        assert not left.exists()


def test_a_workspace_in_use_is_kept_however_old_it_is(local: Store) -> None:
    with local.workspace() as busy:
        written(busy, "still needed")
        make_old(busy, hours=100)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(put, local, "other.txt", "text").result(timeout=20)
        assert (busy / "file.txt").read_text() == "still needed"


def test_the_digest_is_sha256(tmp_path: Path) -> None:
    path = written(tmp_path, "abc")
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_runs_and_current_files_have_their_places(local: Store) -> None:
    run = make_run()
    assert local.run_folder(run).path.endswith("/store/runs/toy/2024-01-25/run-1")
    assert local.current_file("toy", DAY).path.endswith(
        "/store/predictions/toy/day=2024-01-25/predictions.parquet"
    )


def publish_file(store: Store, number: int, rows: int) -> None:
    """Replace the day's file by one of that run, each row of which tells its run."""
    job = make_job()
    run = make_run(run_id=f"run-{number}", run_no=number)
    with store.workspace() as folder:
        pq.write_table(pa.Table.from_batches([parquet_rows(job, run, range(rows))]), folder / "p.parquet")
        store.seal(folder / "p.parquet", source := store.run_folder(run) / "predictions.parquet")
    store.copy(source, store.current_file("toy", DAY))


@contextmanager
def replacing(store: Store, seconds: float) -> Iterator[threading.Event]:
    """The day's file is replaced over and over; run n has 10 * n rows."""
    publish_file(store, 1, 10)
    done = threading.Event()

    def replace() -> None:
        number, end = 1, time.monotonic() + seconds
        while time.monotonic() < end:
            number = number % 9 + 1
            publish_file(store, number, 10 * number)
        done.set()

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(replace)
        yield done
        writer.result()


def polled(read: Callable[[str], pd.DataFrame], path: str) -> pd.DataFrame | None:
    """What a reader sees; None where it fails loudly, because its file was replaced under it."""
    try:
        return read(path)
    except OSError:
        return None


@pytest.mark.parametrize("read", [pd.read_parquet, lambda path: pq.ParquetFile(path).read().to_pandas()])
def test_readers_of_a_file_that_is_replaced_see_one_run_whole_or_fail_loudly(
    local: Store, read: Callable[[str], pd.DataFrame]
) -> None:
    path = local.current_file("toy", DAY).path
    with replacing(local, 2.0) as done:
        frames = [polled(read, path) for _ in iter(done.is_set, True)]
    seen = [frame["run_id"].value_counts() for frame in frames if frame is not None]
    assert len(seen) > len(frames) / 2
    assert len(seen) > 10
    for runs in seen:
        (run_id,) = runs.index
        assert runs[run_id] == 10 * int(str(run_id).removeprefix("run-"))


def dataset(store: Store) -> str:
    """The folder of a dataset of two days with 10 and 20 rows."""
    job = make_job()
    for day, rows in ((DAY, 10), (DAY.next(), 20)):
        run = make_run(day=day)
        with store.workspace() as folder:
            pq.write_table(pa.Table.from_batches([parquet_rows(job, run, range(rows))]), folder / "p.parquet")
            store.seal(folder / "p.parquet", store.current_file("toy", day))
    return str(store.root.path) + "/predictions/toy"


def test_pandas_reads_the_dataset_with_its_day(local: Store) -> None:
    frame = pd.read_parquet(dataset(local))
    assert frame["day"].astype(str).value_counts().to_dict() == {"2024-01-26": 20, "2024-01-25": 10}
    assert len(pd.read_parquet(dataset(local), filters=[("day", "==", "2024-01-25")])) == 10


def test_duckdb_reads_the_dataset_with_its_day_as_a_date(local: Store) -> None:
    files = f"{dataset(local)}/*/*.parquet"
    query = "select typeof(day), count(*) from read_parquet(?, hive_partitioning = true) "
    with duckdb.connect() as connection:
        found = connection.execute(query + "where day = date '2024-01-26' group by 1", [files])
        assert found.fetchall() == [("DATE", 20)]


def test_polars_reads_the_dataset_with_its_day_as_a_date(local: Store) -> None:
    frame = pl.scan_parquet(dataset(local), hive_partitioning=True)
    assert frame.collect_schema()["day"] == pl.Date
    assert frame.filter(pl.col("day") == DAY.day).collect().height == 10


def test_arrow_reads_the_dataset_with_its_day(local: Store) -> None:
    found = ds.dataset(dataset(local), partitioning="hive").to_table()
    assert found.num_rows == 30
    assert found["day"].cast(pa.string()).unique().to_pylist() == ["2024-01-25", "2024-01-26"]
    typed = ds.partitioning(pa.schema([("day", pa.date32())]), flavor="hive")
    day = ds.dataset(dataset(local), partitioning=typed).to_table(filter=ds.field("day") == DAY.day)
    assert day.num_rows == 10


def test_nothing_but_finished_files_is_in_the_dataset(local: Store) -> None:
    folder = Path(dataset(local))
    with local.workspace() as unfinished:
        written(unfinished, "half")
        assert {path.name for path in folder.rglob("*") if path.is_file()} == {"predictions.parquet"}
