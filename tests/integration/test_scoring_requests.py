"""Scores that other systems ask for: answered once each, in order; a poisoned request fails alone."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors
from support.toy import NIGHT, YESTERDAY, Template, Toy, quiet_mlflow
from typer.testing import CliRunner

from pipeline.adapters.migrate import migrate
from pipeline.cli.main import app
from pipeline.errors import ModelError, UsageError
from pipeline.retention import prune_requests
from pipeline.scoring_requests import Answered, answer_requests

pytestmark = pytest.mark.integration

ROW = {"kind": "ball", "amount": 12.5, "note": None, "known_at": "2024-01-24T12:00:00+00:00"}


@contextmanager
def with_queue(template: Template, folder: Path) -> Iterator[Toy]:
    """A toy that declares requests; its owner may act as another system does."""
    with template.copy(folder) as toy:
        with psycopg.connect(template.server._url("postgres", "superuser"), autocommit=True) as connection:
            connection.execute("grant nightshift_requester to nightshift_owner with inherit false")
        toy.edit("dags/toy.yaml", "publish: {sql: true, parquet: true}", "publish: {}\nrequests: {}")
        migrate(toy.env.engine, [toy.job()])
        yield toy


@pytest.fixture
def asked(toy_template: Template, tmp_path: Path) -> Iterator[Toy]:
    """The toy with a queue."""
    with with_queue(toy_template, tmp_path) as toy:
        yield toy


@contextmanager
def requester(toy: Toy) -> Iterator[psycopg.Connection]:
    """Another system's connection."""
    with psycopg.connect(toy.url, autocommit=True) as connection:
        connection.execute("set role nightshift_requester")
        yield connection


def ask(toy: Toy, *requests: tuple[Any, Any]) -> None:
    """Insert requests, each a key and a payload, as another system does."""
    statement = "insert into nightshift.scoring_requests (job, key, payload) values ('toy', %s, %s)"
    with requester(toy) as connection, connection.cursor() as cursor:
        cursor.executemany(
            statement, [(json.dumps(key), payload and json.dumps(payload)) for key, payload in requests]
        )


def queue(toy: Toy) -> list[dict[str, Any]]:
    return toy.rows("select * from nightshift.scoring_requests order by request_no")


def answer(toy: Toy) -> Answered:
    return answer_requests(toy.env, toy.job())


def test_the_next_night_answers_from_what_it_published(asked: Toy) -> None:
    asked.night(YESTERDAY)
    ask(asked, ({"id": 7}, None), ({"id": 999}, None))
    record = asked.night()
    first, other = queue(asked)
    row = asked.by_id()[7]
    assert (first["status"], first["score"], first["decision"]) == ("answered", row["score"], row["decision"])
    assert (first["score_source"], first["model_version"]) == ("champion", 1)
    assert (first["run_id"], first["day"], first["attempts"]) == (record["run_id"], NIGHT.day, 1)
    assert (other["status"], other["score"]) == ("queued", None)
    asked.fill(NIGHT.next(), rows=1, first_id=999)
    asked.night(NIGHT.next())
    assert queue(asked)[1]["status"] == "answered"
    assert queue(asked)[0] == first


def test_a_payload_is_scored_by_the_champion_as_a_night_scores_it(asked: Toy) -> None:
    """The last day of the toy is the day whose history an answer knows."""
    last = asked.job().newest_partition(datetime.now(UTC))
    (source,) = asked.rows("select * from source.toy where day = %s and id = 5", last.day)
    asked.night(last)
    expected = asked.by_id(last)[5]
    payload = {"kind": source["kind"], "amount": source["amount"], "known_at": source["known_at"].isoformat()}
    ask(asked, ({"id": 5}, payload))
    assert answer(asked) == Answered(1, 0, 0)
    (told,) = queue(asked)
    assert (told["score"], told["decision"]) == (pytest.approx(expected["score"]), expected["decision"])
    assert (told["score_source"], told["model_version"], told["run_id"], told["day"]) == (
        "champion", 1, None, last.day,
    )  # fmt: skip


def test_any_number_of_json_is_one_of_a_float_column(asked: Toy) -> None:
    ask(asked, *(({"id": 5}, ROW | {"amount": amount}) for amount in (12, 12.0, 1e20)))
    assert answer(asked) == Answered(3, 0, 0)
    whole, decimal, _ = (row["score"] for row in queue(asked))
    assert whole == decimal


def test_of_a_thousand_requests_the_poisoned_ones_fail_alone_and_the_others_keep_their_order(
    asked: Toy,
) -> None:
    refusing = 'assert (rows["amount"] > -1000).all()\n    kinds = history["kinds"]'
    asked.promote(asked.own_features('kinds = history["kinds"]', refusing))
    asked.night()
    many: list[tuple[Any, Any]] = [
        ({"id": 1 + number % 200}, ROW if number % 2 else None) for number in range(997)
    ]
    many.insert(100, ({"id": "seven"}, None))
    many.insert(500, ({"id": 5}, ROW | {"amount": "much"}))
    many.insert(900, ({"id": 5}, ROW | {"amount": -5000.0}))
    ask(asked, *many)
    assert answer(asked) == Answered(997, 3, 0)
    rows = queue(asked)
    failed = {place: row["error"] for place, row in enumerate(rows) if row["status"] == "failed"}
    assert list(failed) == [100, 500, 900]
    assert "the key must be an object of id bigint" in failed[100]
    assert "column 'amount' must be float" in failed[500]
    assert "make_features of toy must not raise" in failed[900]
    assert not any("5000" in error or "much" in error for error in failed.values())
    with_payload = [row["answered_at"] for row in rows if row["payload"] and row["answered_at"]]
    assert with_payload == sorted(with_payload)
    assert answer(asked) == Answered(0, 0, 0)
    assert queue(asked) == rows


@pytest.mark.parametrize(
    ("key", "payload", "error"),
    [
        (7, None, "the key must be an object"),
        ({}, None, "the key must be an object"),
        ({"id": None}, None, "the key must be an object"),
        ({"id": 7, "more": 1}, None, "the key must be an object"),
        ({"id": 10**30}, None, "the key must be an object"),
        ({"id": 7}, [1], "key and payload must be objects"),
        ({"id": 7}, ROW | {"colour": "red"}, "columns of the extract alone; got colour"),
        ({"id": 7}, {"kind": "ball"}, "column 'amount' must be there"),
        ({"id": 7}, ROW | {"kind": None}, "no null in kind"),
        ({"id": 7}, ROW | {"amount": 10**400}, "plain values"),
        ({"id": 7}, ROW | {"known_at": "yesterday"}, "'known_at' must fit timestamp"),
        ({"id": 7}, ROW | {"kind": {"a": 1}}, "must hold the extract's columns: column 'kind' must be text"),
    ],
)
def test_what_cannot_be_answered_says_why(module_toy: Toy, key: Any, payload: Any, error: str) -> None:
    ask(module_toy, (key, payload))
    assert answer(module_toy) == Answered(0, 1, 0)
    *_, told = queue(module_toy)
    assert (told["status"], told["answered_at"]) == ("failed", None)
    assert error in told["error"]


@pytest.fixture(scope="module")
def module_toy(toy_template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toy]:
    """One toy with a queue for all that fails."""
    with with_queue(toy_template, tmp_path_factory.mktemp("queue")) as toy:
        yield toy


def test_requests_expire_as_they_say_or_as_the_job_declares(asked: Toy) -> None:
    asked.night()
    ask(asked, ({"id": 1}, None), ({"id": 2}, None), ({"id": 3}, None))
    asked.execute("update nightshift.scoring_requests set expires_at = now() where request_no = 1")
    older = "requested_at = now() - interval '25 hours'"
    asked.execute(f"update nightshift.scoring_requests set {older} where request_no = 2")
    assert answer(asked) == Answered(1, 0, 2)
    assert [row["status"] for row in queue(asked)] == ["expired", "expired", "answered"]


def test_two_processes_at_once_answer_each_request_once(asked: Toy) -> None:
    asked.night()
    ask(asked, *[({"id": 1 + number % 200}, ROW if number % 2 else None) for number in range(400)])
    with asked.with_settings() as other, ThreadPoolExecutor(2) as pool:
        done = list(pool.map(answer, (asked, other)))
    # What one has locked the other skips; whoever comes last finds the rest.
    done.append(answer(asked))
    assert sum(each.answered for each in done) == 400
    assert {row["status"] for row in queue(asked)} == {"answered"}


def test_a_request_whose_answering_ends_the_process_is_given_up_and_ends_no_other(
    asked: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(asked, ({"id": 1}, ROW | {"kind": "bomb"}), ({"id": 2}, ROW))

    def killed(env: object, job: object, version: object, day: object, rows: Any, folder: object) -> Any:
        if any(row.column("kind")[0].as_py() == "bomb" for row in rows):
            raise SystemExit
        return champion(env, job, version, day, rows, folder)  # type: ignore[arg-type]

    from pipeline import scoring_requests

    champion = scoring_requests._champion
    monkeypatch.setattr(scoring_requests, "_champion", killed)
    for _ in range(3):
        with pytest.raises(SystemExit):
            answer(asked)
    assert answer(asked) == Answered(1, 1, 0)
    first, second = queue(asked)
    assert (first["status"], first["attempts"], second["status"]) == ("failed", 3, "answered")
    assert "within 3 attempts" in first["error"]


def test_requests_wait_for_a_champion_that_cannot_be_loaded_however_often_they_were_tried(asked: Toy) -> None:
    ask(asked, ({"id": 1}, ROW), ({"id": 2}, ROW))
    asked.promote(asked.register_like(model_uri="/nowhere/model.skops"))
    for _ in range(4):
        with pytest.raises(ModelError):
            answer(asked)
    assert [(row["status"], row["attempts"]) for row in queue(asked)] == [("queued", 0)] * 2
    asked.promote(1)
    assert answer(asked) == Answered(2, 0, 0)


@pytest.mark.parametrize("value", ["1" * 5000, "[" * 2000 + "]" * 2000])
def test_json_that_cannot_be_read_fails_its_request_alone(module_toy: Toy, value: str) -> None:
    with requester(module_toy) as connection:
        connection.execute(
            "insert into nightshift.scoring_requests (job, key, payload) values ('toy', %s, %s)",
            ('{"id": 7}', f'{{"amount": {value}}}'),
        )
    ask(module_toy, ({"id": 8}, ROW))
    assert answer(module_toy) == Answered(1, 1, 0)
    *_, told, after = queue_without_payloads(module_toy)
    assert (told["status"], after["status"]) == ("failed", "answered")
    assert "key and payload must be JSON to read" in told["error"]


def queue_without_payloads(toy: Toy) -> list[dict[str, Any]]:
    """Not even a test can read all of them."""
    return toy.rows("select status, error from nightshift.scoring_requests order by request_no")


def test_what_is_asked_while_others_are_answered_waits_for_the_next_time(
    asked: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks without a pause keeps no night from its end."""
    ask(asked, ({"id": 1}, ROW))

    def asking(*given: Any) -> Any:
        ask(asked, ({"id": 2}, ROW))
        return champion(*given)

    from pipeline import scoring_requests

    champion = scoring_requests._champion
    monkeypatch.setattr(scoring_requests, "_champion", asking)
    monkeypatch.setattr("pipeline.adapters.scoring_requests.AT_ONCE", 1)
    assert answer(asked) == Answered(1, 0, 0)
    assert [row["status"] for row in queue(asked)] == ["answered", "queued"]


def test_a_queue_that_cannot_be_answered_fails_no_night(asked: Toy) -> None:
    ask(asked, ({"id": 1}, ROW))
    asked.promote(asked.register_like(model_uri="/nowhere/model.skops"))
    assert asked.night()["status"] == "published"
    assert [row["status"] for row in queue(asked)] == ["queued"]


@pytest.fixture
def ended(asked: Toy) -> Toy:
    """A queue: answered, failed, expired and queued requests 31 days old, 1 to 4; the same of now, 5 to 8."""
    for then in ("now() - interval '31 days'", "now()"):
        asked.execute(f"""
            insert into nightshift.scoring_requests (job, key, requested_at, status, answered_at, expires_at)
            select 'toy', '{{}}', {then}, status,
                case when status = 'answered' then {then} end, case when status = 'expired' then {then} end
            from unnest(array['answered', 'failed', 'expired', 'queued']) as statuses (status)""")
    return asked


def left(toy: Toy) -> list[tuple[int, str]]:
    return [(row["request_no"], row["status"]) for row in queue(toy)]


NEW = [(4, "queued"), (5, "answered"), (6, "failed"), (7, "expired"), (8, "queued")]


def test_requests_go_a_month_after_their_end_and_what_waits_never_does(ended: Toy) -> None:
    before = left(ended)
    assert before == [(1, "answered"), (2, "failed"), (3, "expired"), *NEW]
    assert (prune_requests(ended.env, ended.job(), dry_run=True), left(ended)) == (3, before)
    assert (prune_requests(ended.env, ended.job()), left(ended)) == (3, NEW)
    assert prune_requests(ended.env, ended.job()) == 0


def test_what_was_answered_or_has_expired_late_is_kept_from_then_on(ended: Toy) -> None:
    ended.execute("update nightshift.scoring_requests set answered_at = now() where request_no = 1")
    ended.execute("update nightshift.scoring_requests set expires_at = now() where request_no = 3")
    assert prune_requests(ended.env, ended.job()) == 1
    assert left(ended) == [(1, "answered"), (3, "expired"), *NEW]


def test_what_expired_as_declared_is_kept_from_then_on(asked: Toy) -> None:
    asked.edit("dags/toy.yaml", "requests: {}", "retention: {requests_days: 1}\nrequests: {}")
    ask(asked, ({"id": 1}, None))
    asked.execute("update nightshift.scoring_requests set requested_at = now() - interval '25 hours'")
    assert answer(asked) == Answered(0, 0, 1)
    assert prune_requests(asked.env, asked.job()) == 0


def test_how_long_requests_are_kept_is_declared(ended: Toy) -> None:
    for days, pruned in (("null", 0), ("32", 0), ("31", 3)):
        ended.edit("dags/toy.yaml", "requests: {}", f"retention: {{requests_days: {days}}}\nrequests: {{}}")
        assert prune_requests(ended.env, ended.job()) == pruned
        ended.edit("dags/toy.yaml", f"retention: {{requests_days: {days}}}\n", "")


def test_another_jobs_requests_are_not_pruned(ended: Toy) -> None:
    columns = "description, owners, timezone, cutoff, start_day"
    other = f"select 'other', {columns} from nightshift.jobs"
    ended.execute(f"insert into nightshift.jobs (job, {columns}) {other}")
    ended.execute("update nightshift.scoring_requests set job = 'other' where request_no in (1, 2)")
    assert prune_requests(ended.env, ended.job()) == 1


def test_the_command_prunes_requests_and_tells_how_many(ended: Toy) -> None:
    with quiet_mlflow():
        told = CliRunner().invoke(app, ["prune", "toy", "--dry-run", "--json"], env=ended.variables)
        done = CliRunner().invoke(app, ["prune", "toy"], env=ended.variables)
        gc.collect()  # otherwise the end of its process closes a command's connections
    assert json.loads(told.stdout)["requests"] == {"toy": 3}
    assert "3 scoring requests" in done.stdout
    assert left(ended) == NEW


def test_who_asks_can_do_nothing_but_ask_and_look(asked: Toy) -> None:
    ask(asked, ({"id": 1}, None))
    with requester(asked) as connection:
        assert connection.execute("select status, requested_by from nightshift.scoring_requests").fetchone()
        for refused in (
            "insert into nightshift.scoring_requests (job, key, status) values ('toy', '{}', 'answered')",
            "update nightshift.scoring_requests set status = 'answered'",
            "delete from nightshift.scoring_requests",
            "select * from nightshift.runs",
            "select * from nightshift.quarantine",
            "select * from predictions.toy",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(refused.encode())
        with pytest.raises(errors.ForeignKeyViolation):
            connection.execute("insert into nightshift.scoring_requests (job, key) values ('tyo', '{}')")


def test_the_command_shows_the_queue_and_answers_it(asked: Toy) -> None:
    asked.night()
    ask(asked, ({"id": 1}, None))
    with quiet_mlflow():
        shown = CliRunner().invoke(app, ["requests", "toy", "--json"], env=asked.variables)
        done = CliRunner().invoke(app, ["requests", "toy", "--answer", "--json"], env=asked.variables)
        gc.collect()  # otherwise the end of its process closes a command's connections
    assert (json.loads(shown.stdout)["counts"], json.loads(shown.stdout)["now"]) == ({"queued": 1}, None)
    told = json.loads(done.stdout)
    assert told["now"] == {"answered": 1, "failed": 0, "expired": 0}
    assert told["newest"][0]["score_source"] == "champion"


def test_a_job_that_declares_no_requests_says_so(toy: Toy) -> None:
    with pytest.raises(UsageError, match="must declare requests"):
        answer(toy)
