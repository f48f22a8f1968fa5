"""The control tables, as queries see them. Their DDL is in `migrations/`; a test holds the two together."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    Time,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

SCHEMA = "nightshift"
PREDICTIONS = "predictions"
ANALYST = "nightshift_analyst"

metadata = MetaData(schema=SCHEMA)


def _instant(name: str, *, nullable: bool = True) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


jobs = Table(
    "jobs",
    metadata,
    Column("job", Text, primary_key=True),
    Column("description", Text, nullable=False),
    Column("owners", JSONB, nullable=False),
    Column("timezone", Text, nullable=False),
    Column("cutoff", Time, nullable=False),
    Column("start_day", Date, nullable=False),
    Column("end_day", Date),
    comment="Each job's expected days, as its declaration says; written by migrate",
)

model_versions = Table(
    "model_versions",
    metadata,
    Column("job", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("feature_version", Text, nullable=False),
    Column("feature_source", Text, nullable=False),
    Column("feature_source_sha256", Text, nullable=False),
    Column("queries", JSONB, nullable=False),
    Column("model_uri", Text, nullable=False),
    Column("model_sha256", Text, nullable=False),
    Column("baseline_uri", Text, nullable=False),
    Column("baseline_sha256", Text, nullable=False),
    Column("sklearn_version", Text, nullable=False),
    Column("trained_from", Date, nullable=False),
    Column("trained_to", Date, nullable=False),
    _instant("labels_as_of", nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("data_fingerprint", Text, nullable=False),
    Column("code_version", Text, nullable=False),
    Column("seed", Integer, nullable=False),
    Column("metrics", JSONB, nullable=False),
    Column("owners", JSONB, nullable=False),
    Column("registry_run_id", Text, nullable=False),
    Column(
        "registered_at",
        DateTime(timezone=True),
        nullable=False,
        server_default=func.clock_timestamp(),
    ),
    PrimaryKeyConstraint("job", "version"),
    comment="Registered versions and what made them; append-only",
)

promotions = Table(
    "promotions",
    metadata,
    Column("promotion_no", BigInteger, Identity(always=True), primary_key=True),
    Column("job", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("previous_version", Integer),
    Column("kind", Text, nullable=False),
    _instant("effective_from", nullable=False),
    Column(
        "recorded_at",
        DateTime(timezone=True),
        nullable=False,
        server_default=func.clock_timestamp(),
    ),
    Column("actor", Text, nullable=False),
    Column("approved_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("model_sha256", Text, nullable=False),
    CheckConstraint("kind in ('promote', 'rollback')", name="promotions_kind"),
    comment="Which version was champion from when, by whose approval; append-only",
)

runs = Table(
    "runs",
    metadata,
    Column(
        "run_no",
        BigInteger,
        Identity(always=True),
        primary_key=True,
        comment="Number of the run; stands in the prediction rows",
    ),
    Column("run_id", Text, nullable=False, unique=True, comment="Name of the run; a retry keeps it"),
    Column("job", Text, nullable=False),
    Column("day", Date, nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("status", Text, nullable=False, comment="running, published, failed or superseded"),
    Column("stage", Text, nullable=False, comment="The last stage that was finished"),
    Column(
        "degraded",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="Whether any row was answered by a fallback",
    ),
    Column("trigger", Text, nullable=False),
    Column("triggered_by", Text, nullable=False, comment="Who or what started the run"),
    Column("owners", JSONB, nullable=False),
    _instant("cutoff", nullable=False),
    Column(
        "as_of", Boolean, nullable=False, comment="False where a backfill read a source that is overwritten"
    ),
    Column("model_version", Integer, nullable=False),
    Column("feature_version", Text, nullable=False),
    Column("model_policy", Text, nullable=False, comment="How the model version was chosen"),
    Column("code_version", Text, nullable=False),
    Column("snapshot_uri", Text),
    Column("snapshot_fingerprint", Text, comment="sha256 of the content read: rows, history, parameters"),
    Column("proved", Boolean, comment="Whether count(*) and rows read agree in one transaction"),
    Column("bytes_read", BigInteger, comment="Arrow bytes read from the source"),
    Column("suite_sha256", Text),
    Column("suite_results", JSONB, comment="Each rule, its severity and how many rows broke it"),
    Column("rows_in", BigInteger, comment="Rows of the snapshot = scored + fallback + withheld"),
    Column("rows_scored", BigInteger, comment="Rows answered by the pinned model"),
    Column("rows_fallback", BigInteger, comment="Rows answered by a step of a fallback chain"),
    Column("rows_withheld", BigInteger, comment="Rows without an answer: in quarantine, not in predictions"),
    Column("rows_quarantined", BigInteger, comment="Rows that no model was given"),
    Column("score_sources", JSONB, comment="Published rows by score_source"),
    Column("warnings", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    Column("parquet_uri", Text),
    Column("parquet_sha256", Text),
    Column("error_type", Text),
    Column("error_message", Text),
    Column(
        "started_at",
        DateTime(timezone=True),
        nullable=False,
        server_default=func.clock_timestamp(),
    ),
    _instant("finished_at"),
    Column("cpu_seconds", Double, nullable=False, server_default=text("0")),
    Column("peak_memory_mb", Double, nullable=False, server_default=text("0")),
    CheckConstraint("status in ('running', 'published', 'failed', 'superseded')", name="runs_status"),
    CheckConstraint(
        "stage in ('planned', 'extracted', 'validated', 'scored', 'sealed', 'published')",
        name="runs_stage",
    ),
    CheckConstraint(
        "stage not in ('sealed', 'published') or rows_in = rows_scored + rows_fallback + rows_withheld",
        name="runs_conserve_rows",
    ),
    Index("runs_job_day", "job", "day", "run_no"),
    comment="One row per run: what was read, checked, scored and published, by which versions",
)

run_parts = Table(
    "run_parts",
    metadata,
    Column("run_no", BigInteger, ForeignKey(runs.c.run_no, ondelete="CASCADE"), nullable=False),
    Column("part", Integer, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("score_sources", JSONB, nullable=False),
    Column("rows_withheld", BigInteger, nullable=False),
    PrimaryKeyConstraint("run_no", "part"),
    comment="Parts of a run's predictions that are loaded",
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("run_no", BigInteger, ForeignKey(runs.c.run_no, ondelete="CASCADE"), nullable=False),
    Column("row", BigInteger, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("column_name", Text),
    Column("value", Text),
    Column("key", Text, nullable=False),
    Index("quarantine_run", "run_no", "row"),
    comment="One row per (row, reason) that no model was given",
)

pointer = Table(
    "pointer",
    metadata,
    Column("job", Text, nullable=False),
    Column("day", Date, nullable=False),
    Column("last_token", BigInteger, nullable=False),
    Column("token", BigInteger, nullable=False, server_default=text("0")),
    Column("run_no", BigInteger, ForeignKey(runs.c.run_no)),
    _instant("published_at"),
    Column("parquet_run_no", BigInteger),
    PrimaryKeyConstraint("job", "day"),
    comment="Which run of a (job, day) readers see, and the highest token used",
)

publications = Table(
    "publications",
    metadata,
    Column("job", Text, nullable=False),
    Column("day", Date, nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("run_no", BigInteger, ForeignKey(runs.c.run_no), nullable=False),
    _instant("published_at", nullable=False),
    _instant("superseded_at"),
    PrimaryKeyConstraint("job", "day", "token"),
    Index(
        "publications_current",
        "job",
        "day",
        unique=True,
        postgresql_where=text("superseded_at is null"),
    ),
    Index("publications_run", "run_no"),
    comment="Every publish of a (job, day) and until when it was current",
)
