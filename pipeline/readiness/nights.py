"""Items whose evidence is a night: run for real in the scratch target."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import sqlalchemy as sa

from pipeline import steps, training
from pipeline.adapters import ledger
from pipeline.adapters.job_tables import history_view
from pipeline.adapters.tables import ANALYST, PREDICTIONS, SCHEMA
from pipeline.adapters.warehouse import quoted
from pipeline.alerting import alert_failed
from pipeline.errors import ExtractError, NightshiftError
from pipeline.job import Job
from pipeline.readiness.rubric import Answer, failed, judged, not_applicable, passed
from pipeline.readiness.strange import CHANGED_COLUMNS, Strange, strange_inputs, tenfold
from pipeline.readiness.subject import ROUNDING, Subject
from pipeline.run import MASK

Check = Callable[[Subject], Answer]
"""Answers one item."""

_SLOWER = 15.0
"""Ten times the rows may take so many times as long."""


def whole_night(subject: Subject) -> Answer:
    """infra-3: a night from the source to both sinks, each row once."""
    record = subject.base.record
    published = subject.published(record)
    keys = published.select(subject.job.declaration.extract.key).to_pandas()
    whole = not keys.duplicated().any() and published.num_rows + record["rows_withheld"] == record["rows_in"]
    return judged(
        whole and record["status"] == "published",
        f"{subject.day} in a scratch target: {record['rows_in']} rows in, {record['rows_scored']} scored, "
        f"{record['rows_fallback']} by a fallback, {record['rows_withheld']} withheld; {record['status']}",
        "read the night's error above and run `nightshift check`",
    )


def latency(subject: Subject) -> Answer:
    """latency: from plan to publish within the time between the cut-off and alerts.publish_by."""
    window, night = _window(subject), subject.base
    told = f"{night.record['rows_in']} rows took {night.seconds:.1f} s"
    if window is None:
        return not_applicable(f"{told}; no alerts.publish_by is declared, so it is never due")
    fix = "give the job more resources.cpus, cheaper history queries, or a later alerts.publish_by"
    return judged(night.seconds < window, f"{told} of the {window:.0f} s between cut-off and publish_by", fix)


def load(subject: Subject) -> Answer:
    """load: the same rows ten times, judged by every rule but those on the whole table."""
    extract = subject.job.declaration.extract
    # Not the first night: that one loaded the libraries, and its extract is on its own account.
    base = subject.made.changed_night(subject.day, lambda batches: batches)
    begun = time.monotonic()
    record = subject.made.changed_night(subject.day, tenfold(extract))
    if record["rows_in"] == base["rows_in"]:
        return not_applicable(
            "no key column is a number or a text, so rows cannot be given keys of their own"
        )
    seconds = time.monotonic() - begun
    ratio = record["cpu_seconds"] / max(base["cpu_seconds"], 0.1)
    window = _window(subject)
    told = (
        f"{record['rows_in']} rows took {seconds:.1f} s and {record['cpu_seconds']:.1f} CPU s, {ratio:.1f} "
        f"times those of {base['rows_in']} rows; {record['rows_withheld']} withheld"
    )
    holds = ratio < _SLOWER and (window is None or seconds < window)
    return judged(holds, told, "find what grows faster than the rows: a history query, or features")


def _window(subject: Subject) -> float | None:
    """Seconds from the cut-off until the day is late."""
    due = subject.job.due(subject.day)
    return (due - subject.job.instants(subject.day).cutoff) / timedelta(seconds=1) if due else None


def robustness(subject: Subject) -> Answer:
    """monitor-2: every kind of strange input is published whole or refused with its reason."""
    told, wrong = [], []
    _ = subject.base  # the last good publish, which no strange night may take away
    for strange in strange_inputs(subject.job.declaration.extract):
        outcome, fault = _strange_night(subject, strange)
        told.append(f"{strange.name}: {outcome}")
        wrong += [f"{strange.name}: {fault}"] if fault else []
    return judged(
        not wrong,
        "; ".join(wrong or told),
        "mend the features or the suite until such a night is published whole or refused by name",
    )


def _strange_night(subject: Subject, strange: Strange) -> tuple[str, str | None]:
    """What came of it, and what is wrong with that."""
    try:
        record = subject.made.changed_night(subject.day, strange.change)
    except NightshiftError as error:
        fault = "lost its last good publish" if not _still_there(subject) else None
        return f"refused by {type(error).__name__}", fault
    if strange.must_refuse:
        return "published", "must be refused; it was published"
    if record["rows_in"] != record["rows_scored"] + record["rows_fallback"] + record["rows_withheld"]:
        return "published", "rows were lost"
    untouched, moved = _untouched(subject, record)
    told = f"{record['rows_scored']} scored, {record['rows_fallback']} by a fallback"
    told += f", {record['rows_withheld']} withheld, {untouched} untouched rows scored as before"
    return (
        told,
        f"{moved} of {untouched} untouched rows have another score or none of the model" if moved else None,
    )


def _still_there(subject: Subject) -> bool:
    with subject.made.env.engine.connect() as connection:
        return ledger.visible_run(connection, subject.job.name, subject.day) is not None


def _untouched(subject: Subject, record: ledger.Record) -> tuple[int, int]:
    """How many rows are as they were on the first night, and of how many of these the model says another.

    Or nothing, because a row beside them keeps it from answering.
    """
    key = list(subject.job.declaration.extract.key)
    before, now = (_modelled_rows(subject, each, key) for each in (subject.base.record, record))
    answered = before[before["score"].notna()]
    both = answered.merge(now, how="inner", on=list(before.columns.drop("score")), suffixes=("", "_now"))
    then, since = (both[name].to_numpy("float64", na_value=np.nan) for name in ("score", "score_now"))
    return len(both), int((~np.isclose(then, since, rtol=ROUNDING, atol=0)).sum())


def _modelled_rows(subject: Subject, record: ledger.Record, key: list[str]) -> pd.DataFrame:
    """All that was read of each row whose key stands once, and the model's score; null where it gave none."""
    rows = subject.rows(record).to_pandas(types_mapper=pd.ArrowDtype)
    published = subject.published(record)
    by_model = published.filter(pa.compute.equal(published.column("score_source"), "champion"))
    scores = by_model.select([*key, "score"]).to_pandas(types_mapper=pd.ArrowDtype)
    known: pd.DataFrame = rows.drop_duplicates(key, keep=False).merge(scores, how="left", on=key)
    return known


def changed_dependency(subject: Subject) -> Answer:
    """monitor-1: a source that changes its columns ends the night, and its owner's alert is recorded."""
    made, told = subject.made, []
    for strange in strange_inputs(subject.job.declaration.extract):
        if strange.name not in CHANGED_COLUMNS:
            continue
        try:
            made.changed_night(subject.day, strange.change)
        except ExtractError as error:
            kind = type(error).__name__
            if not alert_failed(
                made.env, subject.job.name, subject.day, strange.name, "scheduled", kind, str(error)
            ):
                return failed(f"{strange.name}: {kind}, and no alert", "run `nightshift check`")
            told.append(f"{strange.name}: {kind}")
        else:
            return failed(f"{strange.name} was published", "declare the column's type in extract.columns")
    if not told:
        return not_applicable("the extract has no column but its key and texts")
    return passed("; ".join(told) + "; an alert of each failed night was recorded for its owner")


def fallback(subject: Subject) -> Answer:
    """fallback: a night whose model file is not the approved one."""
    chain = subject.job.declaration.fallback.model_failure
    if not chain:
        return failed("fallback.model_failure is empty", "declare what answers instead of a broken model")
    broken = subject.made.register_like(model_sha256="0" * 64)
    subject.made.promote_behind(broken)
    record = subject.made.night(subject.day, version=broken.version)
    told = ", ".join(f"{count} by {source}" for source, count in record["score_sources"].items())
    return judged(
        record["status"] == "published" and record["degraded"] and record["rows_scored"] == 0,
        f"with a model file of another sha256 the night was {record['status']}, marked degraded: {told}; "
        f"{record['rows_withheld']} withheld",
        "add a step that can always answer to fallback.model_failure, such as baseline or default",
    )


def rollback(subject: Subject) -> Answer:
    """infra-7: promote a second version, roll back, and score a night by the version before."""
    made, job = subject.made, subject.job
    approver, since = job.declaration.owners.approvers[0], job.instants(subject.day).day_start
    second = made.register_like()
    for number in (subject.version.version, second.version):
        training.promote(
            made.env, job.name, number, approved_by=approver, reason="readiness", effective_from=since
        )
    promotion, _ = training.rollback(made.env, job.name, approved_by=approver, reason="readiness")
    record = _current_night(subject)
    return judged(
        promotion.version == record["model_version"] == subject.version.version,
        f"version {second.version} was promoted and rolled back; the next night used version "
        f"{record['model_version']}",
        "read the promotion history: nightshift report",
    )


def _current_night(subject: Subject) -> ledger.Record:
    return steps.night(subject.made.env, steps.Request(subject.job.name, subject.day, "current"))


def privacy(subject: Subject) -> Answer:
    """data-5: whatever is wrong with a row, no personal value of it stands in the quarantine."""
    pii = subject.job.declaration.extract.pii
    if not pii:
        return not_applicable("extract.pii is declared empty: no column is personal")
    newest = subject.base.record["run_no"]
    for strange in strange_inputs(subject.job.declaration.extract):
        with suppress(NightshiftError):  # what a refused night leaves in quarantine is judged too
            subject.made.changed_night(subject.day, strange.change)
    statement = sa.text(
        f"select count(*), count(*) filter (where value <> :mask) "
        f"from {SCHEMA}.quarantine where run_no > :newest and column_name = any(:pii) and value is not null"
    )
    with subject.made.env.engine.connect() as connection:
        values = {"newest": newest, "pii": list(pii), "mask": MASK}
        entries, shown = connection.execute(statement, values).one()
    if not entries:
        return not_applicable(f"no rule of the suite puts values of {', '.join(pii)} into the quarantine")
    return judged(
        shown == 0,
        f"{entries} values of {', '.join(pii)} in quarantine, {shown} of them not masked",
        "this is a defect of Nightshift: tell its authors",
    )


def output_contract(subject: Subject) -> Answer:
    """output-contract: views, comments and rights of the job's own warehouse; what the first night left."""
    engines = {"": subject.env.engine, "scratch target: ": subject.made.env.engine}
    faults = [
        place + fault
        for place, engine in engines.items()
        for fault in (*_view_faults(subject.job, engine), *_right_faults(subject.job, engine))
    ]
    faults += _file_faults(subject)
    return judged(
        not faults,
        "; ".join(faults)
        or f"{PREDICTIONS}.{subject.job.name} and its history have every column, commented; the analyst "
        "reads them and no quarantine; the Parquet file holds the same rows",
        "run `nightshift migrate`",
    )


def _view_faults(job: Job, engine: sa.Engine) -> list[str]:
    faults, inspector = list[str](), sa.inspect(engine)
    if not inspector.has_table(job.name, PREDICTIONS):
        return [f"there is no view {PREDICTIONS}.{job.name}"]
    for view in (job.name, history_view(job.name)):
        columns = {each["name"]: each.get("comment") for each in inspector.get_columns(view, PREDICTIONS)}
        faults += [f"{view} lacks {name}" for name in job.output_columns() if name not in columns]
        faults += [f"{view}.{name} has no comment" for name, comment in columns.items() if not comment]
    return faults


def _right_faults(job: Job, engine: sa.Engine) -> list[str]:
    statement = sa.text(
        "select has_table_privilege(:role, to_regclass(:view), 'select'), "
        "has_table_privilege(:role, to_regclass(:quarantine), 'select')"
    )
    view = f"{PREDICTIONS}.{quoted(job.name)}"
    values = {"role": ANALYST, "view": view, "quarantine": f"{SCHEMA}.quarantine"}
    with engine.connect() as connection:
        reads, reads_quarantine = connection.execute(statement, values).one()
    faults = [] if reads else [f"the analyst cannot read {view}"]
    return [*faults, "the analyst can read the quarantine"] if reads_quarantine else faults


def _file_faults(subject: Subject) -> list[str]:
    job, declared = subject.job, subject.job.declaration.publish
    faults = []
    published = subject.published(subject.base.record)
    if missing := [name for name in job.output_columns() if name not in (*published.column_names, "day")]:
        faults.append(f"the Parquet file lacks {', '.join(missing)}")
    if declared.sql:
        counted = sa.text(
            f"select count(*) from {SCHEMA}.{quoted(f'predictions_{job.name}')} where run_no = :no"
        )
        with subject.made.env.engine.connect() as connection:
            rows = connection.execute(counted, {"no": subject.base.record["run_no"]}).scalar_one()
        if rows != published.num_rows:
            faults.append(f"SQL holds {rows} rows and Parquet {published.num_rows}")
    return faults
