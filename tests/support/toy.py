"""A small project of its own: source table, declaration, features, suite, two trained versions.

It is built once a test process; every test gets a copy of its database and a folder of its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pandas as pd
import psycopg
import pyarrow.parquet as pq
import pytest
from psycopg import sql
from pydantic import SecretStr

from pipeline import rollouts, steps, training
from pipeline.adapters import ledger, models, versions
from pipeline.adapters.embedded import EmbeddedServer
from pipeline.adapters.migrate import migrate
from pipeline.adapters.versions import ModelVersion
from pipeline.declaration import load_job
from pipeline.environment import Environment
from pipeline.job import Job
from pipeline.lifecycle.rollout import Kind, Rollout
from pipeline.partition import Partition, between
from pipeline.planning import Request
from pipeline.scoring.feature_code import feeding_queries, load_feature_code
from pipeline.settings import Settings

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

JOB = "toy"
DAYS = 40
ROWS = 200
FIRST = Partition.parse("2024-01-01")
NIGHT = Partition.parse("2024-01-25")
"""The night that most tests score; no label of it was ever trained on."""
YESTERDAY = NIGHT.previous()
CHAMPION_SINCE = datetime(2024, 1, 21, tzinfo=UTC)

_FILES = Path(__file__).with_name("toy_project")
_TABLES = """
create schema source;
create table source.toy (
    day date, id integer, kind text, amount double precision, note text, known_at timestamptz
);
create table source.toy_sales (day date, id integer, sold boolean, known_at timestamptz);
create index on source.toy (day);
create index on source.toy_sales (day);
"""
_FILL = """
insert into source.toy
select %(day)s::date, id, (array['ball', 'doll', 'kite'])[1 + id %% 3],
    (id * 37 + extract(day from %(day)s::date) * 11)::bigint %% 100 + (id %% 7) / 10.0,
    case when id %% 5 = 0 then null else 'note ' || id end,
    (%(day)s::date - 1) + time '12:00'
from generate_series(%(first)s::int, %(last)s::int) as ids(id)
"""
_SELL = """
insert into source.toy_sales
select day, id, amount + 10 * (id %% 3) > 55 + (id * 13 + extract(day from day)::int * 7) %% 20,
    day + time '20:00'
from source.toy where day = %(day)s and id between %(first)s and %(last)s
"""


@dataclass(frozen=True)
class Toy:
    """One copy of the toy project with a warehouse of its own."""

    env: Environment

    @property
    def url(self) -> str:
        """The warehouse, as its owner."""
        return self.env.warehouse_url

    @property
    def project(self) -> Path:
        """The folder of its three files."""
        return self.env.project

    @cached_property
    def variables(self) -> dict[str, str]:
        """What a subprocess needs in its environment to work on this copy."""
        settings = self.env.settings
        return {
            "NIGHTSHIFT_HOME": str(settings.home),
            "NIGHTSHIFT_PROJECT": str(settings.project),
            "NIGHTSHIFT_STORE": str(settings.store),
            "NIGHTSHIFT_WAREHOUSE_URL": self.env.warehouse_url,
            "NIGHTSHIFT_REGISTRY_URL": self.env.registry_url,
        }

    @contextmanager
    def with_settings(self, **changed: Any) -> Iterator[Toy]:
        """The same copy as a process with other settings sees it, for example another `source_url`."""
        settings = self.env.settings
        given = {name: getattr(settings, name) for name in settings.model_fields_set}
        other = Toy(Environment(Settings(**(given | changed))))
        yield other
        other.env.engine.dispose()

    def job(self) -> Job:
        """The declaration as it stands now."""
        return load_job(self.project, JOB)

    def execute(self, statement: str, *values: object) -> None:
        """Run SQL in the warehouse, which is the source too, and commit."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode(), values or None)

    def query(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of a statement."""
        with psycopg.connect(self.url) as connection:
            return connection.execute(statement.encode(), values or None).fetchall()

    def fill(self, day: Partition, rows: int = ROWS, first_id: int = 1) -> None:
        """Add rows of a day, with ids from `first_id` on, and their outcomes."""
        fill(self.url, day, rows, first_id)

    def edit(self, file: str, old: str, new: str) -> None:
        """Change one place of a project file, such as `dags/toy.yaml`."""
        path = self.project / file
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{old!r} must stand once in {file}"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def night(self, day: Partition = NIGHT, **request: Any) -> ledger.Record:
        """Score and publish one night; raises when it fails."""
        return steps.night(self.env, Request(JOB, day, **request))

    def promote(self, number: int, since: datetime = CHAMPION_SINCE) -> None:
        """Make a version champion."""
        with quiet_mlflow():
            training.promote(self.env, JOB, number, approved_by="ana", reason="a test", effective_from=since)

    def rollback(self) -> None:
        """Return to the champion before."""
        with quiet_mlflow():
            training.rollback(self.env, JOB, approved_by="ana", reason="a test")

    def rollout(
        self, kind: Kind, number: int | None = 2, since: datetime = CHAMPION_SINCE, **given: Any
    ) -> Rollout:
        """Let a version run beside the champion."""
        return rollouts.start(
            self.env, JOB, kind, version=number, reason="a test", effective_from=since,
            approved_by="ana", **given,
        )  # fmt: skip

    def version(self, number: int) -> ModelVersion:
        """A registered version."""
        with self.env.engine.connect() as connection:
            return versions.version(connection, JOB, number)

    def register_like(self, like: int = 1, **changed: Any) -> int:
        """Register a version again with some of its fields changed; its number."""
        with self.env.engine.begin() as connection:
            number = versions.numbers(connection, JOB)[-1] + 1
            version = versions.version(connection, JOB, like)
            versions.insert(connection, dataclasses.replace(version, version=number, **changed))
        return number

    def register(self, estimator: BaseEstimator, like: int = 1) -> int:
        """Register an estimator of the test's own as a new version like another one; its number."""
        path, sha256 = models.save(estimator, self._new_folder(), "model")
        metrics = self._of_another_model(like)
        return self.register_like(like, model_uri=str(path), model_sha256=sha256, metrics=metrics)

    def own_artifacts(self, like: int = 1) -> int:
        """Register a version again with artifact files of this copy, which a test may break."""
        version, folder = self.version(like), self._new_folder()
        return self.register_like(
            like,
            model_uri=_copied(version.model_uri, folder / "model.skops"),
            baseline_uri=_copied(version.baseline_uri, folder / "baseline.skops"),
        )

    def own_features(self, old: str, new: str, like: int = 1) -> int:
        """Register a version again with one place of its feature source changed."""
        source = self.version(like).feature_source
        assert source.count(old) == 1, f"{old!r} must stand once in the features"
        changed = source.replace(old, new)
        version = self.version(like)
        queries = feeding_queries(version.extract, version.history)
        return self.register_like(
            like,
            feature_source=changed,
            feature_source_sha256=hashlib.sha256(changed.encode()).hexdigest(),
            feature_version=load_feature_code(JOB, changed, queries).version,
            metrics=self._of_another_model(like),
        )

    def _of_another_model(self, like: int) -> dict[str, Any]:
        """Metrics of a version without the answers that its own model once gave."""
        return {name: held for name, held in self.version(like).metrics.items() if name != "known_answers"}

    def own_extract(self, old: str, new: str, like: int = 1) -> int:
        """Register a version again with one place of its extract's SQL changed."""
        queries: Any = self.version(like).queries
        assert queries["extract"]["sql"].count(old) == 1, f"{old!r} must stand once in the extract"
        extract = queries["extract"] | {"sql": queries["extract"]["sql"].replace(old, new)}
        changed = dataclasses.replace(self.version(like), queries=queries | {"extract": extract})
        feeding = feeding_queries(changed.extract, changed.history)
        return self.register_like(
            like,
            queries=changed.queries,
            feature_version=load_feature_code(JOB, changed.feature_source, feeding).version,
        )

    def _new_folder(self) -> Path:
        folder = self.env.settings.home / "models" / uuid4().hex
        folder.mkdir(parents=True)
        return folder

    def record(self, run_id: str) -> ledger.Record:
        """The runs row of that name."""
        with self.env.engine.connect() as connection:
            found = ledger.find(connection, run_id)
        assert found is not None, f"no run {run_id}"
        return found

    def runs(self) -> list[dict[str, Any]]:
        """All runs, in the order in which they were planned."""
        return self.rows("select * from nightshift.runs order by run_no")

    def last_run(self) -> dict[str, Any]:
        """The run that was planned last."""
        return self.runs()[-1]

    def rows(self, statement: str, *values: object) -> list[dict[str, Any]]:
        """The rows of a statement by column name."""
        with psycopg.connect(self.url, row_factory=psycopg.rows.dict_row) as connection:
            return connection.execute(statement.encode(), values or None).fetchall()

    def published(self, day: Partition = NIGHT) -> list[dict[str, Any]]:
        """What SQL readers see of a day, by key."""
        return self.rows("select * from predictions.toy where day = %s order by id", day.day)

    def by_id(self, day: Partition = NIGHT) -> dict[int, dict[str, Any]]:
        """What SQL readers see of a day: id to row."""
        return {row["id"]: row for row in self.published(day)}

    def parquet(self, day: Partition = NIGHT) -> pd.DataFrame:
        """What readers of the Parquet file see of a day, by key."""
        path = Path(self.env.store.current_file(JOB, day).path)
        frame: pd.DataFrame = pq.ParquetFile(path).read().to_pandas()
        return frame.sort_values("id", ignore_index=True)

    def quarantine(self) -> list[dict[str, Any]]:
        """The quarantine of the last run, sorted."""
        statement = "select * from nightshift.quarantine where run_no = %s order by row, rule"
        return self.rows(statement, self.last_run()["run_no"])


def fill(url: str, day: Partition, rows: int = ROWS, first_id: int = 1) -> None:
    """Insert rows of a day, and what became of them, into any database that has the source's tables."""
    values = {"day": day.day, "first": first_id, "last": first_id + rows - 1}
    with psycopg.connect(url) as connection:
        connection.execute(_FILL, values)
        connection.execute(_SELL, values)


@contextmanager
def quiet_mlflow() -> Iterator[None]:
    """MLflow warns of its own code when it is imported and used; tests turn warnings into errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def create_tables(url: str) -> None:
    """Create the source's tables, empty."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_TABLES)


def _copied(uri: str, target: Path) -> str:
    shutil.copyfile(uri.removeprefix("file://"), target)
    return str(target)


def _environment(folder: Path, url: str, registry: str) -> Environment:
    shutil.copytree(_FILES, folder / "project", ignore=shutil.ignore_patterns("__pycache__"))
    return Environment(
        Settings(
            home=folder / "home",
            project=folder / "project",
            store=str(folder / "store"),
            warehouse_url=SecretStr(url),
            registry_url=SecretStr(registry),
        )
    )


@dataclass(frozen=True)
class Template:
    """The built project that tests copy."""

    server: EmbeddedServer
    database: str
    registry: str

    @contextmanager
    def copy(self, folder: Path) -> Iterator[Toy]:
        """A copy with a database of its own, dropped afterwards."""
        name = f"toy_{uuid4().hex[:12]}"
        statement = sql.SQL("create database {} template {}").format(
            sql.Identifier(name), sql.Identifier(self.database)
        )
        with psycopg.connect(self.server.url("registry"), autocommit=True) as connection:
            connection.execute(statement)
        toy = Toy(_environment(folder, self.server.url(name), self.registry))
        try:
            yield toy
        finally:
            toy.env.engine.dispose()
            self.server.drop_database(name)


def _build(server: EmbeddedServer, folder: Path) -> Template:
    database = f"toy_template_{uuid4().hex[:12]}"
    server.create_database(database)
    url = server.url(database)
    registry = f"sqlite:///{folder / 'registry.db'}"
    toy = Toy(_environment(folder, url, registry))
    create_tables(url)
    days = list(between(FIRST, Partition(FIRST.day.fromordinal(FIRST.day.toordinal() + DAYS - 1))))
    for day in days:
        fill(url, day)
    migrate(toy.env.engine, [toy.job()])
    for nights in (10, 6):
        with quiet_mlflow():
            training.train(toy.env, JOB, days[:nights], CHAMPION_SINCE, None, lambda _: None)
    toy.promote(1)
    toy.env.engine.dispose()
    return Template(server, database, registry)


@pytest.fixture(scope="session")
def toy_template(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Template:
    """Versions 1 (ten nights, champion since CHAMPION_SINCE) and 2 (six nights) of the toy job."""
    return _build(server, tmp_path_factory.mktemp("toy"))


@pytest.fixture
def toy(toy_template: Template, tmp_path: Path) -> Iterator[Toy]:
    """The toy project with a database and a store of its own; nothing is scored yet."""
    with toy_template.copy(tmp_path) as copied:
        yield copied
