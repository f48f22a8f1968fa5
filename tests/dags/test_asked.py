"""Which day a DAG run is of: its partition key, a person's word, the newest complete day; never a guess."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dags.asked import Asked, AskedTraining, answer_told, approver, asked, asked_training, name_of_run
from pipeline.declaration import load_job
from pipeline.errors import UsageError
from pipeline.job import Job

BEFORE_CUTOFF = datetime(2013, 5, 6, 6, 59, tzinfo=UTC)
"""A minute before 03:00 in New York."""
AFTER_CUTOFF = datetime(2013, 5, 6, 7, 0, tzinfo=UTC)


@dataclass
class DagRun:
    """What a task is told of its DAG run, as far as it matters here."""

    run_type: str
    partition_key: str | None = None
    run_id: str = "manual__1"
    clear_number: int = 0
    triggering_user_name: str | None = None


@pytest.fixture(scope="module")
def job() -> Job:
    return load_job(Path(__file__).resolve().parents[2], "flight_delays")


def day(job: Job, run: DagRun, now: datetime = AFTER_CUTOFF, **params: Any) -> str:
    return asked(job, run, params, now).day


@pytest.mark.parametrize("run_type", ["scheduled", "backfill", "manual", "asset_triggered"])
def test_the_partition_key_is_the_day(job: Job, run_type: str) -> None:
    assert day(job, DagRun(run_type, "2013-05-02")) == "2013-05-02"


def test_the_partition_key_wins_over_the_parameter(job: Job) -> None:
    assert day(job, DagRun("manual", "2013-05-02"), day="2013-05-03") == "2013-05-02"


def test_a_manual_run_may_name_its_day(job: Job) -> None:
    assert day(job, DagRun("manual"), day="2013-05-03") == "2013-05-03"


@pytest.mark.parametrize(("now", "newest"), [(BEFORE_CUTOFF, "2013-05-05"), (AFTER_CUTOFF, "2013-05-06")])
def test_a_manual_run_without_a_word_is_of_the_newest_complete_day(
    job: Job, now: datetime, newest: str
) -> None:
    assert day(job, DagRun("manual"), now) == newest


def test_after_the_end_of_the_schedule_its_last_day_is_the_newest(job: Job) -> None:
    assert day(job, DagRun("manual"), datetime(2026, 1, 1, tzinfo=UTC)) == "2013-12-31"


@pytest.mark.parametrize("run_type", ["scheduled", "backfill", "asset_triggered"])
def test_any_other_run_without_a_partition_key_is_refused(job: Job, run_type: str) -> None:
    """A backfill's form shows the parameter too: one day would go to every run."""
    with pytest.raises(UsageError, match="must have a partition key"):
        day(job, DagRun(run_type), day="2013-05-03")


@pytest.mark.parametrize("run_type", ["backfill", "manual", "asset_triggered"])
def test_a_day_that_is_not_complete_fails(job: Job, run_type: str) -> None:
    with pytest.raises(UsageError, match="must have passed its cut-off"):
        day(job, DagRun(run_type, "2013-05-06"), BEFORE_CUTOFF)


def test_a_scheduled_run_of_a_day_that_is_not_complete_waits(job: Job) -> None:
    assert day(job, DagRun("scheduled", "2013-05-06"), BEFORE_CUTOFF) == "2013-05-06"


@pytest.mark.parametrize("key", ["2013-5-2", "yesterday", "2013-02-30"])
def test_a_day_that_is_none_is_refused(job: Job, key: str) -> None:
    with pytest.raises(UsageError, match="YYYY-MM-DD"):
        day(job, DagRun("manual", key))


def with_policy(job: Job, policy: str | int) -> Job:
    model = job.declaration.model.model_copy(update={"backfill_policy": policy})
    return job.model_copy(update={"declaration": job.declaration.model_copy(update={"model": model})})


@pytest.mark.parametrize("declared", ["current", "as-of", 3])
def test_a_backfill_takes_the_declared_policy(job: Job, declared: str | int) -> None:
    of_declared = with_policy(job, declared)
    assert asked(of_declared, DagRun("backfill", "2013-05-02"), {}, AFTER_CUTOFF).policy == str(declared)
    assert asked(of_declared, DagRun("scheduled", "2013-05-02"), {}, AFTER_CUTOFF).policy == "current"


@pytest.mark.parametrize("run_type", ["backfill", "manual", "scheduled"])
def test_the_runs_own_configuration_may_choose_another_policy(job: Job, run_type: str) -> None:
    asks = asked(job, DagRun(run_type, "2013-05-02"), {"model": "as-of"}, AFTER_CUTOFF)
    assert asks.policy == "as-of"
    asks = asked(job, DagRun(run_type, "2013-05-02"), {"model": "as-of", "version": 2}, AFTER_CUTOFF)
    assert asks.policy == "2"


def test_only_people_try_without_doing(job: Job) -> None:
    wish = {"dry_run": True}
    assert asked(job, DagRun("manual", "2013-05-02"), wish, AFTER_CUTOFF).dry_run
    assert not asked(job, DagRun("backfill", "2013-05-02"), wish, AFTER_CUTOFF).dry_run


def test_a_run_remembers_who_asked(job: Job) -> None:
    run = DagRun("manual", "2013-05-02", triggering_user_name="ana")
    assert asked(job, run, {}, AFTER_CUTOFF) == Asked(
        day="2013-05-02", policy="current", trigger="manual", by="ana, manual__1", dry_run=False
    )


def test_a_retry_keeps_the_runs_name_and_clearing_makes_another() -> None:
    first = name_of_run("toy", "2013-05-02", DagRun("manual"))
    assert first == name_of_run("toy", "2013-05-02", DagRun("manual"))
    assert first != name_of_run("toy", "2013-05-02", DagRun("manual", clear_number=1))
    assert first != name_of_run("toy", "2013-05-02", DagRun("manual", run_id="manual__2"))


FIRED = {"kind": "on_drift", "evidence": "on_drift: a feature moved; new_labels: 2000 rows"}


def training(run_type: str, *events: dict[str, Any], **params: Any) -> AskedTraining:
    return asked_training(DagRun(run_type), params, events, AFTER_CUTOFF)


def test_a_training_that_names_no_nights_means_the_newest_with_labels_known_now() -> None:
    asks = training("manual")
    assert asks == AskedTraining(None, None, AFTER_CUTOFF.isoformat(), None, "manual", None, "manual__1 0")


def test_a_retried_training_keeps_its_key_and_a_cleared_one_gets_another() -> None:
    runs = DagRun("manual"), DagRun("manual", clear_number=1), DagRun("manual", run_id="manual__2")
    keys = [asked_training(run, {}, (), AFTER_CUTOFF).key for run in runs]
    assert len(set(keys)) == 3
    assert asked_training(DagRun("manual"), {}, (), AFTER_CUTOFF + timedelta(days=1)).key == keys[0]


def test_a_training_may_name_its_nights_its_seed_and_its_labels() -> None:
    given = {"from": "2013-01-08", "to": "2013-04-30", "as_of": "2013-05-01T07:00:00+00:00", "seed": 3}
    asks = training("manual", **given)
    assert (asks.first, asks.last, asks.as_of, asks.seed) == tuple(given.values())


def test_a_training_that_names_one_night_of_two_is_refused() -> None:
    with pytest.raises(UsageError, match="its first and its last night, or none; got 2013-04-30"):
        training("manual", to="2013-04-30")


def test_a_training_tells_what_has_asked_for_it() -> None:
    assert training("scheduled").trigger == "schedule"
    asks = training("asset_triggered", FIRED)
    assert (asks.trigger, asks.evidence) == ("on_drift", FIRED["evidence"])


def test_an_event_that_a_person_makes_has_no_evidence_and_is_no_trigger() -> None:
    """As Airflow's page of an asset makes them."""
    by_hand = {"from_rest_api": True}
    asks = training("asset_triggered", by_hand)
    assert (asks.trigger, asks.evidence) == ("manual", None)
    both = training("asset_triggered", by_hand, FIRED)
    assert (both.trigger, both.evidence) == ("on_drift", FIRED["evidence"])


def test_labels_as_of_an_instant_without_a_zone_are_of_utc_and_no_instant_is_refused() -> None:
    assert training("manual", as_of="2013-05-01T00:00:00").as_of == "2013-05-01T00:00:00+00:00"
    with pytest.raises(UsageError, match=r"as_of must be an instant .* got 'yesterday'"):
        training("manual", as_of="yesterday")


def answered(login: str, **params: str | None) -> tuple[str, str]:
    response = {"responded_by_user": {"id": login, "name": login}, "params_input": params}
    return approver(response, ("ana", "ben"))


def test_an_approver_who_is_logged_in_approves_in_no_other_name() -> None:
    assert answered("ana") == answered("ana", approved_by="ben") == ("ana", "ana")


def test_a_local_login_names_the_approver() -> None:
    assert answered("admin", approved_by="ben") == ("admin", "ben")


@pytest.mark.parametrize("params", [{}, {"approved_by": None}, {"approved_by": "eve"}])
def test_an_answer_in_nobodys_name_is_refused(params: dict[str, str | None]) -> None:
    with pytest.raises(
        UsageError, match=r"one of ana, ben must approve; got 'admin'.*Clear the task approve"
    ):
        answered("admin", **params)


@pytest.mark.parametrize(
    ("option", "login", "named", "told"),
    [
        ("Reject", "ana", None, "Rejected by ana; the champion stays"),
        ("Reject", "admin", "ben", "Rejected by admin for ben; the champion stays"),
        ("Reject", None, None, "Rejected: nobody has answered within 7 days; the champion stays"),
        ("Approve", "admin", "ben", "Approved by admin for ben"),
    ],
)
def test_an_answer_is_told_with_who_gave_it(
    option: str, login: str | None, named: str | None, told: str
) -> None:
    user = {"id": login, "name": login} if login else None
    response = {"chosen_options": [option], "responded_by_user": user, "params_input": {"approved_by": named}}
    assert answer_told(response, timedelta(days=7)) == told
