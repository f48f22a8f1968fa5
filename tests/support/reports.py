"""Builders for what report pages show, without a warehouse; and a reader of the pages."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from html.parser import HTMLParser
from typing import Any, TypeVar

from pipeline.job_life import Gate
from pipeline.lifecycle.gate import Evidence, Pair, Part, Probe, decide, figures
from pipeline.lifecycle.gate import Night as JudgedNight
from pipeline.monitoring.metrics import Baseline, Metric
from pipeline.monitoring.report.facts import (
    AlertFacts,
    ColumnFacts,
    Declared,
    JobFacts,
    PromotionFacts,
    Realised,
    Reason,
    RunFacts,
    SourceFacts,
    Status,
    TableFacts,
    VerdictFacts,
    VersionFacts,
)
from pipeline.monitoring.report.values import (
    Day,
    DictionaryPage,
    JobLine,
    JobPage,
    Night,
    RunPage,
    Scores,
    VerdictPage,
)

T = TypeVar("T")

DAY = date(2024, 12, 31)
AT = datetime(2024, 12, 31, 3, tzinfo=UTC)

JOB = JobFacts(
    job="toy",
    description="Probability that a toy is sold.",
    owners={"team": "Toys", "on_call": "on-call@example.com", "approvers": ["ana"]},
    timezone="Europe/Berlin",
    cutoff=time(3),
    start_day=date(2024, 1, 1),
    end_day=None,
)
DECLARED = Declared(
    key=("id",),
    columns={"day": "date", "id": "integer", "note": "text?"},
    pii=("note",),
    sources=(SourceFacts("toy", "source.toy", "known_at"), SourceFacts("old", "source.old", None)),
    output="probability",
    threshold=0.5,
    rolling_days=28,
    label="sold",
    mature_after_days=2,
    currency="EUR",
    costs={"hit": 1.0, "miss": 4.0},
)
VERSION = VersionFacts(
    version=1,
    feature_version="f-1",
    model_uri="file:///models/model.skops",
    model_sha256="1" * 64,
    sklearn_version="1.7",
    trained_from=date(2023, 12, 1),
    trained_to=date(2023, 12, 31),
    labels_as_of=AT,
    rows=1000,
    data_fingerprint="2" * 64,
    code_version="test",
    seed=0,
    metrics={"holdout": {"model": {"auc": 0.8}, "baseline": {"auc": 0.6}}},
    registered_at=AT,
)
PROMOTION = PromotionFacts(
    version=1,
    previous_version=None,
    kind="promote",
    effective_from=datetime(2024, 6, 1, tzinfo=UTC),
    recorded_at=AT,
    approved_by="ana",
    reason="better",
)
ALERT = AlertFacts(
    day=DAY,
    last_day=DAY,
    run_id="run-1",
    kind="drift",
    cause="feature amount: another distribution",
    state="open",
    raised_at=AT,
    delivered_at=None,
    channel="ops",
)


def run_facts(day: date = DAY, **changed: Any) -> RunFacts:
    """A published run of 1,000 rows, with some of its fields changed."""
    run = RunFacts(
        run_no=1,
        run_id=f"run-{day}",
        job="toy",
        day=day,
        token=1,
        status="published",
        stage="published",
        degraded=False,
        trigger="scheduled",
        triggered_by="airflow",
        owners=JOB.owners,
        cutoff=AT,
        as_of=True,
        model_version=1,
        feature_version="f-1",
        model_policy="current",
        code_version="test",
        snapshot_uri="file:///store/runs/toy",
        snapshot_fingerprint="3" * 64,
        proved=True,
        bytes_read=120_000,
        suite_sha256="4" * 64,
        suite_results=[rule("expect_column_values_to_not_be_null"), rule("expect_other", success=False)],
        rows_in=1000,
        rows_scored=990,
        rows_fallback=7,
        rows_withheld=3,
        rows_quarantined=10,
        score_sources={"champion": 990, "rule": 7},
        warnings=["an extra column was left out"],
        parquet_uri="file:///store/runs/toy/predictions.parquet",
        parquet_sha256="5" * 64,
        error_type=None,
        error_message=None,
        started_at=AT,
        finished_at=AT + timedelta(seconds=75),
        cpu_seconds=1.5,
        peak_memory_mb=400.0,
        parts=1,
    )
    return dataclasses.replace(run, **changed)


def failed_run() -> RunFacts:
    """A run that ended before anything was read."""
    unknown = (
        "snapshot_uri", "snapshot_fingerprint", "proved", "bytes_read", "suite_sha256", "suite_results",
        "rows_in", "rows_scored", "rows_fallback", "rows_withheld", "rows_quarantined", "score_sources",
        "parquet_uri", "parquet_sha256", "parts",
    )  # fmt: skip
    changed: dict[str, Any] = dict.fromkeys(unknown)
    changed |= {"status": "failed", "stage": "planned", "warnings": []}
    changed |= {"error_type": "EmptyPartition", "error_message": "the day must have rows"}
    return dataclasses.replace(run_facts(), **changed)


def rule(name: str, *, success: bool = True) -> Mapping[str, Any]:
    """A rule's result as the runs table keeps it."""
    return {
        "rule": name,
        "column": "amount",
        "severity": "critical",
        "success": success,
        "failed_rows": 0 if success else 3,
        "observed": None,
    }


def nights(count: int) -> tuple[Night, ...]:
    """So many nights up to DAY, all measured and judged."""
    names = ("drift/js/training", "drift/js/rolling", "score/js/training", "score/js/rolling", "score/mean",
             "score/q25", "score/q75", "realised/auc", "realised/base_rate", "realised/mean_score",
             "realised/cost_per_1000", "realised/cost_no_model", "estimate/auc", "estimate/auc_error",
             "estimate/cost_per_1000", "estimate/cost_per_1000_error")  # fmt: skip
    return tuple(
        Night(run_facts(day), dict.fromkeys(names, 0.1 + number % 7 / 100), False, 900)
        for number, day in enumerate(days_to(count))
    )


def days_to(count: int) -> list[date]:
    """So many days up to DAY."""
    return [DAY - timedelta(days=back) for back in reversed(range(count))]


def metrics(columns: int) -> tuple[Metric, ...]:
    """All distances of so many features from both baselines."""
    distances = ("js", "psi", "wasserstein", "out_of_range_share")
    names: list[tuple[str, Baseline]] = [("missing_share", "none")]
    names += [(name, "training") for name in distances] + [(name, "rolling") for name in distances]
    features = [
        Metric("feature", f"feature_{number}", name, baseline, number / columns)
        for number in range(columns)
        for name, baseline in names
    ]
    others = (
        Metric("score", "score", "mean", "none", 0.4),
        Metric("estimate", "quality", "auc", "none", 0.7),
    )
    return (*features, *others)


def realised(slices: int) -> tuple[Realised, ...]:
    """The quality of all rows and of so many values of a slice."""
    places = [("all", "all"), *(("kind", f"kind {number}") for number in range(slices))]
    return tuple(
        Realised("all", column, value, metric, 0.7, 100, 90, False, AT)
        for column, value in places
        for metric in ("auc", "base_rate", "mean_score", "precision", "cost_per_1000")
    )


def run_page(count: int = 91, **changed: Any) -> RunPage:
    """The page of a night of which everything is known."""
    page = RunPage(
        job=JOB,
        declared=DECLARED,
        run=run_facts(),
        visible=Day(DAY, "warned", f"run-{DAY}", 1, "published", ("warning: an extra column",)),
        visible_run_id=f"run-{DAY}",
        others=(run_facts(run_id="run-2"), run_facts()),
        previous=run_facts(DAY - timedelta(days=1)),
        following=None,
        reasons=(Reason("quarantined", "expect_column_values_to_be_between", "amount", 7),),
        metrics=metrics(60),
        realised=realised(30),
        scores=Scores(0.0, 1.0, tuple(range(40)), tuple(range(40, 0, -1))),
        nights=nights(count),
        version=VERSION,
        promotions=(PROMOTION,),
        alerts=(ALERT,),
    )
    return dataclasses.replace(page, **changed)


def unknown_page(run: RunFacts) -> RunPage:
    """The page of a run of which only its row in the runs table is known."""
    return RunPage(
        job=JOB, declared=DECLARED, run=run, visible=None, visible_run_id=None, others=(run,), previous=None,
        following=None, reasons=(), metrics=(), realised=(), scores=None, nights=(), version=None,
        promotions=(), alerts=(),
    )  # fmt: skip


def job_page(count: int = 366, **changed: Any) -> JobPage:
    """The index of a job with so many nights, in every state."""
    states: tuple[Status, ...] = (
        "ok", "warned", "degraded", "failed", "running", "superseded", "withdrawn", "missing"
    )  # fmt: skip
    page = JobPage(
        job=JOB,
        declared=DECLARED,
        champion=1,
        days=tuple(
            Day(
                day,
                states[number % len(states)],
                f"run-{day}",
                number % 3,
                "published",
                ("degraded: 1 rows by rule",),
            )
            for number, day in enumerate(days_to(count))
        ),
        nights=nights(count),
        recent=(run_facts(), failed_run()),
        versions=(VERSION,),
        promotions=(PROMOTION,),
        alerts=(ALERT,),
        verdicts=(verdict_page().verdict,),
    )
    return dataclasses.replace(page, **changed)


def job_lines() -> tuple[JobLine, ...]:
    """Two jobs, one of which never ran."""
    return JobLine(JOB, job_page(28).days, 1, 2), JobLine(JOB, (), None, 0)


def dictionary() -> DictionaryPage:
    """A dictionary of one view."""
    columns = (
        ColumnFacts("score", "double precision", "What the model says"),
        ColumnFacts("x", "text", None),
    )
    return DictionaryPage(JOB, DECLARED, (TableFacts("predictions.toy", "A toy.", columns),))


def verdict_page(count: int = 28, **changed: Any) -> VerdictPage:
    """The page of a challenger that is refused: better on average, bad on one shop, one broken test."""
    days = days_to(count)
    held = Evidence(
        loss="cost in EUR per 1,000 rows",
        output="probability",
        nights=[_judged_night(day, number) for number, day in enumerate(days)],
        tests=[
            Probe("behaviour", "price falling", 1000, 3),
            Probe("golden_rows", "served and replayed", 20, 0),
        ],
        cpu_seconds=Pair(0.010, 0.012),
        memory_mb=Pair(40.0, 41.0),
    )
    settings = Gate()
    verdict = decide(held, settings)
    known = {
        "left_out": {"2024-12-01": "EmptyPartition: the partition must have rows; got none"},
        "champion_has_seen": 2,
        "champion_trained_to": "2024-12-05",
        "challenger_trained_to": "2024-12-03",
    }
    facts = VerdictFacts(
        verdict_no=7,
        job="toy",
        challenger=3,
        champion=1,
        first_day=days[0],
        last_day=days[-1],
        nights=count,
        labels_as_of=AT,
        outcome=verdict.outcome,
        reasons=[dataclasses.asdict(reason) for reason in verdict.reasons],
        figures=json.loads(json.dumps(figures(held, settings) | known)),
        settings=settings.model_dump(mode="json"),
        judged_at=AT,
        actor="ana",
        challenger_sha256="3" * 64,
        champion_sha256="1" * 64,
    )
    return dataclasses.replace(VerdictPage(JOB, facts, (PROMOTION,)), **changed)


def _judged_night(day: date, number: int) -> JudgedNight:
    champion = 700.0 + 80 * math.sin(number)
    noise = 25 * math.cos(7.0 * number)
    return JudgedNight(
        day=day,
        label=0.2,
        score=Pair(0.21, 0.22),
        whole=Part(1000, Pair(champion, champion - 30 + noise)),
        slices={
            ("shop", "good"): Part(700, Pair(champion, champion - 60 + noise)),
            ("shop", "bad"): Part(200, Pair(champion, champion + 160 + 2 * noise)),
            ("shop", "tiny"): Part(3, Pair(champion, champion + 300)),
        },
        metrics={"auc": Pair(0.7, 0.72)},
    )


_FIXED = {
    "status", "outcome", "check", "day", "last_status", "timezone", "output",
    "severity", "part", "metric", "baseline", "slice_column",
    "arm", "state",
}  # fmt: skip
"""Fields whose values are ours: the schema or a type allows no others, or they are looked up."""


def with_texts(value: T, text: str) -> T:
    """The same values, with every free text in them replaced, however deep it lies."""
    return _replaced(value, text)  # type: ignore[no-any-return]


def _replaced(value: Any, text: str) -> Any:
    if isinstance(value, str):
        return text
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        held = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return type(value)(**_replaced_values(held, text))
    if isinstance(value, Mapping):
        return _replaced_values(value, text)
    if isinstance(value, tuple | list):
        return type(value)(_replaced(each, text) for each in value)
    return value


def _replaced_values(held: Mapping[str, Any], text: str) -> dict[str, Any]:
    return {name: each if name in _FIXED else _replaced(each, text) for name, each in held.items()}


_VOID = {"meta", "br", "hr", "input"}


class PageReader(HTMLParser):
    """Reads a page; fails where tags are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str | None]] = set()
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == [], f"left open: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())

    @property
    def text(self) -> str:
        """What people read."""
        return " ".join(text for text in self.texts if text)
