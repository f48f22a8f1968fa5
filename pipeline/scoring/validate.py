"""The second stage: which rows of a snapshot a model may not see, and whether the snapshot serves at all."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ValidationError
from pipeline.job import Extract, Validate
from pipeline.partition import Instants, Partition
from pipeline.run import MASK, QUARANTINED, Parameter, RuleResult, Snapshot, Verdicts
from pipeline.scoring.rules import ENGINE_RULES, TABLE, Reason, engine_reasons
from pipeline.scoring.suite import Rule, Suite
from pipeline.scoring.verdicts import (
    Staged,
    Written,
    count_failing,
    count_good,
    staged,
    write_verdicts,
)

if TYPE_CHECKING:
    from pipeline.scoring.duckdb_engine import Answer

MOST_RULES = 10
"""How many rules a message names."""

_Counted = tuple[Reason, int]


@cache
def warm_up() -> None:
    """Import Great Expectations, seconds of work that may overlap the extract in a thread."""
    # Its modules log each of their functions while they are imported, and rows' values later
    logging.getLogger("great_expectations").setLevel(logging.CRITICAL + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pipeline.scoring.duckdb_engine  # noqa: F401
    # They hand the process's warnings to logging
    logging.captureWarnings(False)


def validate(
    snapshot: Snapshot,
    suite: Suite,
    extract: Extract,
    rules: Validate,
    partition: Partition,
    binds: Instants,
    target: Path,
    *,
    memory_mb: int = 512,
    threads: int = 2,
) -> Verdicts:
    """Judge a snapshot and write `target`, the rows that no model may see (see `run.Verdicts`).

    Memory: DuckDB stays below `memory_mb` and spills beside `target`. Raises ValidationError when a critical
    rule on the whole table fails, a rule cannot be evaluated or counts contradict each other; and when more
    rows than `rules.max_quarantined_share` are bad: then `target` is written all the same.
    """
    warm_up()
    parameters = _parameters(suite, snapshot.parameters, binds)
    with staged(snapshot.path, extract, target.parent, memory_mb=memory_mb, threads=threads) as stage:
        answers = _ask(stage, suite, parameters, rows=snapshot.rows)
        _refuse(answers, parameters, extract)
        own = _engine_failures(stage, extract, partition, snapshot.rows)
        reasons = [*own, *_suite_failures(answers)]
        written = write_verdicts(
            stage, extract, [reason for reason, _ in reasons], stage.folder / target.name
        )
        good = count_good(stage, [reason for reason, _ in reasons])
        _prove(snapshot.rows, good, written, reasons)
        (stage.folder / target.name).replace(target)
    results = (*_engine_results(own), *(_result(answer, extract) for answer in answers))
    verdicts = Verdicts(target, snapshot.rows, good, written.quarantined, written.withheld, results)
    _limit(verdicts, rules, reasons)
    return verdicts


def _parameters(suite: Suite, given: Mapping[str, Parameter], binds: Instants) -> dict[str, Parameter]:
    known: dict[str, Parameter] = {**given, **binds.binds()}
    absent = sorted(name for name in suite.parameters if known.get(name) is None)
    if absent:
        raise ValidationError(
            f"every parameter of the suite must have a value; got none for {', '.join(absent)}. "
            f"Known: {', '.join(sorted(known))}. Give it in validate.parameters"
        )
    return {name: _naive(value) for name, value in known.items()}


def _naive(value: Parameter) -> Parameter:
    """An instant in UTC without its zone, as the judged view has them; anything else unchanged."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(tzinfo=None)
    return value


def _ask(stage: Staged, suite: Suite, parameters: Mapping[str, Parameter], *, rows: int) -> list[Answer]:
    from pipeline.scoring.duckdb_engine import SnapshotEngine, ask

    # Where an empty partition is normal, no column has anything to judge
    rules = [rule for rule in suite.rules if rows or not rule.columns]
    engine = SnapshotEngine(stage.connection.cursor(), TABLE)
    try:
        return ask(engine, rules, parameters)
    finally:
        engine.close()


def _refuse(answers: Sequence[Answer], parameters: Mapping[str, Parameter], extract: Extract) -> None:
    """Raise for rules that raised, of any severity, and for critical rules on the whole table."""
    broken = [answer for answer in answers if answer.error is not None]
    failed = [answer for answer in answers if not answer.success and answer.rule.severity == "critical"]
    fatal = [answer for answer in failed if answer.failing is None]
    if broken or fatal:
        rows = [answer for answer in failed if answer.failing is not None]
        named = [*broken, *(answer for answer in fatal if answer.error is None), *rows]
        raise ValidationError(
            "the snapshot must meet every critical rule; got: "
            + _listed([_sentence(answer, parameters, extract) for answer in named])
            + ". Repair the source, or change the suite"
        )


def _sentence(answer: Answer, parameters: Mapping[str, Parameter], extract: Extract) -> str:
    name = _named(answer.rule.name, ", ".join(answer.rule.columns))
    if answer.error is not None:
        return f"{name}: could not be evaluated ({answer.error})"
    if answer.failing is not None:
        return f"{name}: {answer.failed_rows} rows"
    return f"{name}: observed {_observed(answer, extract)}, expected {_expected(answer.rule, parameters)}"


def _expected(rule: Rule, parameters: Mapping[str, Parameter]) -> str:
    bounds = {key: value for key, value in rule.bounded(parameters).items() if not key.startswith("column")}
    return json.dumps(bounds or rule.kwargs, default=str)[:200]


def _observed(answer: Answer, extract: Extract) -> str | None:
    secret = answer.observed is not None and set(answer.rule.columns) & set(extract.pii)
    return MASK if secret else answer.observed


def _engine_failures(stage: Staged, extract: Extract, partition: Partition, rows: int) -> list[_Counted]:
    reasons = list(engine_reasons(extract, partition))
    counted, failing = count_failing(stage, reasons)
    if counted != rows:
        raise ValidationError(f"the snapshot must hold the {rows} rows that were extracted; got {counted}")
    return [(reason, count) for reason, count in zip(reasons, failing, strict=True) if count]


def _suite_failures(answers: Sequence[Answer]) -> list[_Counted]:
    return [
        (Reason(answer.rule.name, answer.rule.columns, QUARANTINED, answer.failing), answer.failed_rows)
        for answer in answers
        if answer.failing is not None and not answer.success and answer.rule.severity == "critical"
    ]


def _prove(rows: int, good: int, written: Written, reasons: Sequence[_Counted]) -> None:
    """Conservation, and each rule's lines against the count of the rule itself."""
    if good + written.quarantined + written.withheld != rows:
        raise ValidationError(
            f"good, quarantined and withheld rows must add up to {rows}; "
            f"got {good} + {written.quarantined} + {written.withheld}"
        )
    wrong = []
    for reason, count in reasons:
        lines = written.lines.get((reason.rule, reason.column), 0)
        if lines != count:
            wrong.append(f"{_named(reason.rule, reason.column)}: {lines} of {count}")
    if wrong:
        raise ValidationError(f"each rule's failing rows must all be written; got {_listed(wrong)}")


def _engine_results(failed: Sequence[_Counted]) -> list[RuleResult]:
    failures = [
        RuleResult(reason.rule, reason.column, "critical", success=False, failed_rows=count)
        for reason, count in failed
    ]
    names = {failure.rule for failure in failures}
    passed = [
        RuleResult(name, None, "critical", success=True, failed_rows=0)
        for name in ENGINE_RULES
        if name not in names
    ]
    return [*failures, *passed]


def _result(answer: Answer, extract: Extract) -> RuleResult:
    rule = answer.rule
    return RuleResult(
        rule=rule.name,
        column=", ".join(rule.columns) or None,
        severity=rule.severity,
        success=answer.success,
        failed_rows=answer.failed_rows,
        observed=_observed(answer, extract),
    )


def _limit(verdicts: Verdicts, rules: Validate, reasons: Sequence[_Counted]) -> None:
    bad = verdicts.quarantined + verdicts.withheld
    if bad > rules.max_quarantined_share * verdicts.rows:
        by_count = sorted(reasons, key=lambda counted: -counted[1])
        named = [f"{_named(reason.rule, reason.column)}: {count} rows" for reason, count in by_count]
        raise ValidationError(
            f"at most {rules.max_quarantined_share:.1%} of the rows may be bad; "
            f"got {bad / verdicts.rows:.1%} ({bad} of {verdicts.rows}): {_listed(named)}. "
            "Repair the source, or raise validate.max_quarantined_share"
        )


def _named(rule: str, column: str | None) -> str:
    return f"{rule} on {column}" if column else rule


def _listed(sentences: Sequence[str]) -> str:
    more = len(sentences) - MOST_RULES
    return "; ".join(sentences[:MOST_RULES]) + (f"; and {more} more" if more > 0 else "")
