"""The control tables, as queries see them. Their DDL is in `migrations/`; a test holds the two together."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    Time,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB
from sqlalchemy.types import TypeEngine

SCHEMA = "nightshift"
PREDICTIONS = "predictions"
ANALYST = "nightshift_analyst"
REPORTER = "nightshift_reporter"
REQUESTER = "nightshift_requester"
"""A login that reads what reports show and no more, such as the API server's; where there is one."""

metadata = MetaData(schema=SCHEMA)

_Type = TypeEngine[Any] | type[TypeEngine[Any]]
_INSTANT = DateTime(timezone=True)


def _given(name: str, kind: _Type, comment: str, default: str | None = None) -> Column[Any]:
    """A column that every row fills."""
    value = None if default is None else text(default)
    return Column(name, kind, nullable=False, server_default=value, comment=comment)


def _maybe(name: str, kind: _Type, comment: str) -> Column[Any]:
    """A column that is null until something is known, or where it does not apply."""
    return Column(name, kind, comment=comment)


def _now(name: str, comment: str) -> Column[Any]:
    return Column(name, _INSTANT, nullable=False, server_default=func.clock_timestamp(), comment=comment)


jobs = Table(
    "jobs",
    metadata,
    _given("job", Text, "Name of the job"),
    _given("description", Text, "What the job predicts"),
    _given("owners", JSONB, "Team, on-call address and approvers"),
    _given("timezone", Text, "Zone of the business day"),
    _given("cutoff", Time, "Clock time, in that zone, up to which a day may know"),
    _given("start_day", Date, "First day that is expected"),
    _maybe("end_day", Date, "Last day that is expected; null while the job goes on"),
    PrimaryKeyConstraint("job"),
    comment="Each job's expected days, as its declaration says; written by migrate",
)

model_versions = Table(
    "model_versions",
    metadata,
    _given("job", Text, "Name of the job"),
    _given("version", Integer, "Number of the version, counted by job"),
    _given("feature_version", Text, "Hash of the feature code and of the queries it reads"),
    _given("feature_source", Text, "Source of the feature module, which scoring with this version runs"),
    _given("feature_source_sha256", Text, "sha256 of the feature source"),
    _given("queries", JSON, "Extract and history declarations that the version was trained on"),
    _given("model_uri", Text, "Where the model file is"),
    _given("model_sha256", Text, "sha256 that the model file must have to be loaded"),
    _given("baseline_uri", Text, "Where the baseline's file is"),
    _given("baseline_sha256", Text, "sha256 that the baseline's file must have to be loaded"),
    _given("sklearn_version", Text, "Version of scikit-learn that alone may load the files"),
    _given("trained_from", Date, "First day of the training rows"),
    _given("trained_to", Date, "Last day of the training rows"),
    _given("labels_as_of", _INSTANT, "Labels known later were left out"),
    _given("rows", BigInteger, "Training rows"),
    _given("data_fingerprint", Text, "sha256 over the snapshots trained on"),
    _given("code_version", Text, "Commit of the project, or version of the package"),
    _given("seed", Integer, "Seed of the fit"),
    _given("metrics", JSONB, "Held-out metrics of model and baseline"),
    _given("owners", JSONB, "Team, on-call address and approvers at the time"),
    _given("registry_run_id", Text, "Run of the registry that holds the files"),
    _maybe("profile_uri", Text, "Where the profile of the training rows is; null of older versions"),
    _maybe("profile_sha256", Text, "sha256 that the profile must have to be a baseline"),
    _maybe("environment_sha256", Text, "sha256 of the project's requirements.lock; null where it has none"),
    _given("parameters", JSONB, "The model's parameters by name, as text", "'{}'::jsonb"),
    _given("fingerprints", JSONB, "Fingerprint of each night's snapshot by its day", "'{}'::jsonb"),
    _maybe("refit_of", Integer, "Version that was accepted, which this one was fitted like; null otherwise"),
    _maybe("challenger_of", Integer, "Champion when the version was trained; null where there was none"),
    _given("trigger", Text, "What asked for it: manual, schedule or the kind of a trigger", "'manual'"),
    _maybe("trigger_evidence", Text, "Why the trigger fired; null where none did"),
    _maybe("training_key", Text, "Names the training, whatever its attempts; null where none was named"),
    _now("registered_at", "When the version was registered"),
    PrimaryKeyConstraint("job", "version"),
    UniqueConstraint("job", "training_key", name="model_versions_training"),
    comment="Registered versions and what made them; append-only",
)

promotions = Table(
    "promotions",
    metadata,
    Column("promotion_no", BigInteger, Identity(always=True), primary_key=True, comment="Order of recording"),
    _given("job", Text, "Name of the job"),
    _given("version", Integer, "Version that became champion"),
    _maybe("previous_version", Integer, "Champion before; null for the first"),
    _given("kind", Text, "promote or rollback"),
    _given("effective_from", _INSTANT, "Cut-offs from this instant on are answered by the version"),
    _now("recorded_at", "When the promotion was recorded"),
    _given("actor", Text, "Who ran the command"),
    _given("approved_by", Text, "Which declared approver agreed"),
    _given("reason", Text, "Why"),
    _given("model_sha256", Text, "sha256 of the approved model file"),
    CheckConstraint("kind in ('promote', 'rollback')", name="promotions_kind"),
    comment="Which version was champion from when, by whose approval; append-only",
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("rollout_no", BigInteger, Identity(always=True), primary_key=True, comment="Order of recording"),
    _given("job", Text, "Name of the job"),
    _given("kind", Text, "shadow, canary, ab or stop"),
    _maybe("version", Integer, "Version that runs beside the champion; null for a stop"),
    _maybe("share", Double, "Its share of the keys; null for a shadow and a stop"),
    _maybe("salt", Text, "Decides which keys those are; kept while the version goes on; null for a stop"),
    _given("effective_from", _INSTANT, "Cut-offs from this instant on are answered so"),
    _now("recorded_at", "When it was recorded"),
    _given("actor", Text, "Who ran the command, or nightshift where a guardrail stopped it"),
    _maybe("approved_by", Text, "Which declared approver agreed; null for a shadow and a stop"),
    _given("reason", Text, "Why"),
    Column(
        "stops",
        BigInteger,
        ForeignKey(f"{SCHEMA}.rollouts.rollout_no"),
        comment="Rollout that a stop ends; null for others",
    ),
    _maybe("model_sha256", Text, "sha256 of the version's model file; null for a stop"),
    CheckConstraint("kind in ('shadow', 'canary', 'ab', 'stop')", name="rollouts_kind"),
    CheckConstraint(
        "(kind = 'stop') = (version is null) and (kind = 'stop') = (salt is null) "
        "and (kind = 'stop') = (stops is not null)",
        name="rollouts_stop",
    ),
    CheckConstraint(
        "(kind in ('canary', 'ab')) = (share is not null) and (share is null or share > 0 and share < 1)",
        name="rollouts_share",
    ),
    comment="Which version ran beside the champion from when, for which keys; append-only",
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
    _given("run_id", Text, "Name of the run; a retry keeps it"),
    _given("job", Text, "Name of the job"),
    _given("day", Date, "Business day that the run scores"),
    _given("token", BigInteger, "Grows with every run of a (job, day); the highest one is shown"),
    _given("status", Text, "running, published, failed, superseded or withdrawn"),
    _given("stage", Text, "The last stage that was finished"),
    _given("degraded", Boolean, "Whether any row was answered by a fallback", "false"),
    _given("trigger", Text, "manual, scheduled, asset or backfill"),
    _given("triggered_by", Text, "Who or what started the run"),
    _given("owners", JSONB, "Team, on-call address and approvers at the time"),
    _given("cutoff", _INSTANT, "Nothing known later was used"),
    _given("as_of", Boolean, "False where a backfill read a source that is overwritten"),
    _given("model_version", Integer, "Version the run is pinned to"),
    _given("feature_version", Text, "Hash of the feature code and of the queries it reads"),
    _given("model_policy", Text, "How the model version was chosen"),
    _given("code_version", Text, "Commit of the project, or version of the package"),
    _maybe("snapshot_uri", Text, "Folder of the run's immutable files; null once its snapshot is pruned"),
    _maybe("snapshot_fingerprint", Text, "sha256 of the content read: rows, history, parameters"),
    _maybe("proved", Boolean, "Whether count(*) and rows read agree in one transaction"),
    _maybe("bytes_read", BigInteger, "Arrow bytes read from the source"),
    _maybe("suite_sha256", Text, "sha256 of the suite's file"),
    _maybe("suite_results", JSONB, "Each rule, its severity and how many rows broke it"),
    _maybe("rows_in", BigInteger, "Rows of the snapshot = scored + fallback + withheld"),
    _maybe("rows_scored", BigInteger, "Rows answered by the pinned version or its challenger"),
    _maybe("rows_fallback", BigInteger, "Rows answered by a step of a fallback chain"),
    _maybe("rows_withheld", BigInteger, "Rows without an answer: in quarantine, not in predictions"),
    _maybe("rows_quarantined", BigInteger, "Rows that no model was given"),
    _maybe("score_sources", JSONB, "Published rows by score_source"),
    _given("warnings", JSONB, "What was odd but did not stop the run", "'[]'::jsonb"),
    _maybe("parquet_uri", Text, "The run's own Parquet file of predictions"),
    _maybe("parquet_sha256", Text, "sha256 of that file"),
    _maybe("error_type", Text, "Kind of error that ended the run; null unless it failed"),
    _maybe("error_message", Text, "What had to hold, what was found, what to do next"),
    _now("started_at", "When the run was planned"),
    _maybe("finished_at", _INSTANT, "When the run ended; null while it is at work"),
    _given("cpu_seconds", Double, "CPU seconds of all stages and attempts", "0"),
    _given("peak_memory_mb", Double, "Highest resident memory of any stage's process, MiB", "0"),
    _maybe("parts", Integer, "Shards among which the rows are scored"),
    Column(
        "rollout_no",
        BigInteger,
        ForeignKey(rollouts.c.rollout_no),
        comment="Rollout in which a challenger takes part; null without one",
    ),
    _maybe("pruned_at", _INSTANT, "When retention removed its rows and files; null while they are kept"),
    _maybe("pruned_bytes", BigInteger, "Bytes of its removed files; null until all are removed"),
    UniqueConstraint("run_id"),
    CheckConstraint(
        "status in ('running', 'published', 'failed', 'superseded', 'withdrawn')", name="runs_status"
    ),
    CheckConstraint(
        "stage in ('planned', 'extracted', 'validated', 'scored', 'sealed', 'published')",
        name="runs_stage",
    ),
    # A check that gives null passes, so unknown counts have to be refused by name.
    CheckConstraint(
        "stage not in ('sealed', 'published') "
        "or coalesce(rows_in = rows_scored + rows_fallback + rows_withheld, false)",
        name="runs_conserve_rows",
    ),
    Index("runs_job_day", "job", "day", "run_no"),
    comment="One row per run: what was read, checked, scored and published, by which versions",
)


def _of_run(comment: str, *, nullable: bool = True, ondelete: str | None = None) -> Column[int]:
    key = ForeignKey(runs.c.run_no, ondelete=ondelete)
    return Column("run_no", BigInteger, key, nullable=nullable, comment=comment)


run_parts = Table(
    "run_parts",
    metadata,
    _of_run("Number of the run", nullable=False, ondelete="CASCADE"),
    _given("part", Integer, "Number of the part, from 0"),
    _given("rows", BigInteger, "Rows that the part predicts"),
    _given("sha256", Text, "sha256 of the part's file"),
    _given("score_sources", JSONB, "Rows of the part by score_source"),
    _given("rows_withheld", BigInteger, "Rows that no step of a chain answered"),
    PrimaryKeyConstraint("run_no", "part"),
    comment="Parts of a run's predictions that are loaded",
)

quarantine = Table(
    "quarantine",
    metadata,
    _of_run("Number of the run", nullable=False, ondelete="CASCADE"),
    _given("run_id", Text, "Name of the run; joins runs"),
    _given("row", BigInteger, "Position of the row in the run's snapshot, from 0"),
    _given("verdict", Text, "quarantined (a fallback may answer) or withheld"),
    _given("rule", Text, "Rule that the row broke"),
    _maybe("column_name", Text, "Column that the rule looks at; null where it takes several"),
    _maybe("value", Text, "Offending value; masked where the column is declared pii"),
    _given("key", Text, "JSON of the job's key columns"),
    Index("quarantine_run", "run_no", "row"),
    comment="One row per (row, reason) that no model was given",
)

pointer = Table(
    "pointer",
    metadata,
    _given("job", Text, "Name of the job"),
    _given("day", Date, "Business day"),
    _given("last_token", BigInteger, "Highest token that was ever given out"),
    _given("token", BigInteger, "Token of the last change; only a higher one may change it again", "0"),
    _of_run("Run that readers see; null for none"),
    _maybe("published_at", _INSTANT, "When the pointer was moved last"),
    _maybe("parquet_run_no", BigInteger, "Run whose rows the current Parquet file holds"),
    PrimaryKeyConstraint("job", "day"),
    comment="Which run of a (job, day) readers see, and the highest token used",
)

publications = Table(
    "publications",
    metadata,
    _given("job", Text, "Name of the job"),
    _given("day", Date, "Business day"),
    _given("token", BigInteger, "Token that the change was made with"),
    _of_run("Run that readers saw", nullable=False),
    _given("published_at", _INSTANT, "When readers began to see the run"),
    _maybe("superseded_at", _INSTANT, "When a newer run replaced it; null while current"),
    PrimaryKeyConstraint("job", "day", "token"),
    Index("publications_current", "job", "day", unique=True, postgresql_where=text("superseded_at is null")),
    Index("publications_run", "run_no"),
    comment="Every publish of a (job, day) and until when it was current",
)

withdrawals = Table(
    "withdrawals",
    metadata,
    _given("job", Text, "Name of the job"),
    _given("day", Date, "Business day"),
    _given("token", BigInteger, "Token that the change was made with"),
    _of_run("Run that was taken back", nullable=False),
    _maybe("restored_run_no", BigInteger, "Run that readers see instead; null for none"),
    _given("withdrawn_at", _INSTANT, "When readers ceased to see the run"),
    _given("actor", Text, "Who ran the command"),
    _maybe("approved_by", Text, "Which declared approver agreed; null where none was named"),
    _given("reason", Text, "Why"),
    PrimaryKeyConstraint("job", "day", "token"),
    comment="Published runs that were taken back, by whom and why; append-only",
)

scoring_requests = Table(
    "scoring_requests",
    metadata,
    Column("request_no", BigInteger, Identity(always=True), primary_key=True, comment="Order of asking"),
    _given("job", Text, "Name of the job"),
    _given("key", JSONB, "The job's key columns, as an object"),
    _maybe("payload", JSONB, "The extract's other columns of that key; null to ask for the published score"),
    _now("requested_at", "When it was asked"),
    _given("requested_by", Text, "Login that asked", "session_user"),
    _maybe("expires_at", _INSTANT, "When the answer is of no use any more; null: as the job declares"),
    _given("status", Text, "queued, answered, expired or failed", "'queued'"),
    _given("attempts", Integer, "How often an answer was tried", "0"),
    _maybe("answered_at", _INSTANT, "When it was answered"),
    _maybe("day", Date, "Business day whose knowledge the answer has"),
    _maybe("run_id", Text, "Run whose published row is the answer; null where the payload was scored"),
    _maybe("score", Double, "Probability or value that the job predicts"),
    _maybe("decision", Boolean, "Whether the score reaches the declared threshold; null without one"),
    _maybe("score_source", Text, "Who answered, as in the predictions"),
    _maybe("model_version", Integer, "Version of the model that gave the score"),
    _maybe("error", Text, "Why it failed: what must hold and what was got"),
    CheckConstraint("status in ('queued', 'answered', 'expired', 'failed')", name="scoring_requests_status"),
    ForeignKeyConstraint(["job"], [jobs.c.job]),
    Index("scoring_requests_queue", "job", "request_no", postgresql_where=text("status = 'queued'")),
    comment="Scores that other systems ask for, and their answers",
)

alerts = Table(
    "alerts",
    metadata,
    Column("alert_no", BigInteger, Identity(always=True), primary_key=True, comment="Order of raising"),
    _given("job", Text, "Name of the job"),
    _maybe("day", Date, "Business day; null where the alert is of no single day; the first of an episode"),
    _maybe("run_id", Text, "Name of the run; null where none was planned"),
    _given("kind", Text, "failed, late, structure, drift, concept or rollout"),
    _given("cause", Text, "What failed, was missed or changed; each cause of a (job, day) is raised once"),
    _given("owner", Text, "Team and on-call address at the time"),
    _given("message", Text, "The whole notice, without secrets and without rows"),
    _now("raised_at", "When the alert was raised"),
    _maybe("channel", Text, "Name of the channel declared at the time; null for none"),
    _maybe("delivered_at", _INSTANT, "When the channel took the notice; null while it has not"),
    _maybe("delivery_error", Text, "Why the last attempt to send failed; null once delivered"),
    _given("state", Text, "open, acknowledged or resolved", "'open'"),
    _maybe("last_day", Date, "Last day of the episode on which its cause was seen"),
    _maybe("acknowledged_at", _INSTANT, "When somebody took it on; null while nobody has"),
    _maybe("acknowledged_by", Text, "Who took it on"),
    _maybe("resolved_at", _INSTANT, "When the episode ended; null while it lasts"),
    _maybe("resolved_by", Text, "Who ended the episode, or nightshift where it ended by itself"),
    CheckConstraint(
        "kind in ('failed', 'late', 'structure', 'drift', 'concept', 'rollout')", name="alerts_kind"
    ),
    CheckConstraint("state in ('open', 'acknowledged', 'resolved')", name="alerts_state"),
    # The day is null at times, and null would differ from null.
    UniqueConstraint("job", "day", "kind", "cause", name="alerts_once", postgresql_nulls_not_distinct=True),
    comment="What was told to the owners: failed and late nights, changes by episode, stopped rollouts",
)

metrics = Table(
    "metrics",
    metadata,
    _of_run("Number of the run", nullable=False, ondelete="CASCADE"),
    _given("run_id", Text, "Name of the run; joins runs and predictions"),
    _given("job", Text, "Name of the job"),
    _given("day", Date, "Business day"),
    _given("part", Text, "What is measured: rows, input, feature, score or estimate"),
    _given("column_name", Text, "Column measured; the part's own name where it is no column"),
    _given("metric", Text, "Name of the metric; the data dictionary explains each"),
    _given("baseline", Text, "What it is measured against: none, training or rolling"),
    _given("value", Double, "The metric's value"),
    CheckConstraint("baseline in ('none', 'training', 'rolling')", name="metrics_baseline"),
    CheckConstraint("part in ('rows', 'input', 'feature', 'score', 'estimate')", name="metrics_part"),
    PrimaryKeyConstraint("run_no", "part", "column_name", "metric", "baseline"),
    Index("metrics_day", "job", "day"),
    comment="What each run's data looked like: quality of inputs, drift, predictions, estimated quality",
)

outcomes = Table(
    "outcomes",
    metadata,
    _of_run("Run whose predictions are judged", nullable=False, ondelete="CASCADE"),
    _given("run_id", Text, "Name of the run; joins runs and predictions"),
    _given("job", Text, "Name of the job"),
    _given("day", Date, "Business day of the predictions"),
    _given("hindsight", Boolean, "Whether the run was published after the decision, as a backfill is"),
    _given("model_version", Integer, "Version the run is pinned to"),
    _given("arm", Text, "Arm of an experiment; all for every row"),
    _given("slice_column", Text, "Declared column by which rows are set apart; all for every row"),
    _given("slice_value", Text, "Value of that column; all for every row"),
    _given("metric", Text, "Name of the metric; the data dictionary explains each"),
    _given("value", Double, "The metric's value over the labelled rows"),
    _given("rows", BigInteger, "Predictions of this slice"),
    _given("labelled", BigInteger, "Predictions of this slice whose label was known"),
    _given("labels_as_of", _INSTANT, "Labels known later were left out"),
    _given("evaluated_at", _INSTANT, "When this was computed"),
    PrimaryKeyConstraint("run_no", "arm", "slice_column", "slice_value", "metric", "evaluated_at"),
    Index("outcomes_day", "job", "day"),
    comment="Realised quality and cost of published predictions, each time they were evaluated; append-only",
)

retrain_triggers = Table(
    "retrain_triggers",
    metadata,
    Column("trigger_no", BigInteger, Identity(always=True), primary_key=True, comment="Order of firing"),
    _given("job", Text, "Name of the job"),
    _given("kind", Text, "every_days, on_drift, far_from_training, on_concept, cost_above or new_labels"),
    _given("day", Date, "Business day on which it was looked at, and fired"),
    _given("evidence", Text, "Why, in a sentence"),
    _given("figures", JSONB, "Why, in figures"),
    _given("champion_version", Integer, "Champion that is to be challenged"),
    _given("cool_down_until", Date, "Last day on which it, and those that share its cool-down, stay silent"),
    _maybe("dag_run_id", Text, "DAG run that found it; null where a command did"),
    _now("fired_at", "When it fired"),
    CheckConstraint(
        "kind in ('every_days', 'on_drift', 'far_from_training', 'on_concept', 'cost_above', 'new_labels')",
        name="retrain_triggers_kind",
    ),
    Index("retrain_triggers_job", "job", "trigger_no"),
    comment="What asked for a new version by itself, and why; append-only",
)

gate_verdicts = Table(
    "gate_verdicts",
    metadata,
    Column("verdict_no", BigInteger, Identity(always=True), primary_key=True, comment="Order of judging"),
    _given("job", Text, "Name of the job"),
    _given("challenger", Integer, "Version that was judged"),
    _given("champion", Integer, "Version that it was compared with"),
    _given("first_day", Date, "First of the replayed nights"),
    _given("last_day", Date, "Last of the replayed nights"),
    _given("nights", Integer, "Nights that both versions answered"),
    _given("labels_as_of", _INSTANT, "Labels known later were left out"),
    _given("outcome", Text, "accept, refuse or not_enough_evidence"),
    _given("reasons", JSONB, "What each check says: check, outcome and evidence, a sentence"),
    _given("figures", JSONB, "What was measured: losses of both by night and slice, tests, CPU and memory"),
    _given("settings", JSONB, "The declared gate at the time"),
    _now("judged_at", "When the verdict was recorded"),
    _given("actor", Text, "Who ran the command"),
    _given("challenger_sha256", Text, "sha256 of the challenger's model file"),
    _given("champion_sha256", Text, "sha256 of the champion's model file"),
    CheckConstraint("outcome in ('accept', 'refuse', 'not_enough_evidence')", name="gate_verdicts_outcome"),
    Index("gate_verdicts_challenger", "job", "challenger", "verdict_no"),
    comment="What the gate said of a challenger against the champion, on which evidence; append-only",
)

rollout_nights = Table(
    "rollout_nights",
    metadata,
    _of_run("Number of the run", nullable=False, ondelete="CASCADE"),
    _given("run_id", Text, "Name of the run; joins runs and predictions"),
    _given("job", Text, "Name of the job"),
    _given("day", Date, "Business day"),
    _given("rollout_no", BigInteger, "Rollout that the run took part in"),
    _given("slice_column", Text, "Declared column by which rows are set apart; all for every row"),
    _given("slice_value", Text, "Value of that column; all for every row"),
    _given("champion_assigned", BigInteger, "Rows of the champion's arm; in a shadow, rows of both versions"),
    _given(
        "challenger_assigned", BigInteger, "Rows of the challenger's arm; in a shadow, rows of both versions"
    ),
    _given("champion_rows", BigInteger, "Rows of its arm that the champion answered"),
    _given("challenger_rows", BigInteger, "Rows of its arm that the challenger answered"),
    _given("failed_rows", BigInteger, "Rows of the challenger's arm that the champion had to answer"),
    _given("champion_decisions", BigInteger, "Positive decisions among champion_rows"),
    _given("challenger_decisions", BigInteger, "Positive decisions among challenger_rows"),
    _maybe("champion_mean", Double, "Mean score of champion_rows; null without any"),
    _maybe("challenger_mean", Double, "Mean score of challenger_rows; null without any"),
    _maybe("champion_std", Double, "Standard deviation of those scores; null below two"),
    _maybe("challenger_std", Double, "Standard deviation of those scores; null below two"),
    _maybe("changed", BigInteger, "Rows that the challenger would decide otherwise; null but in a shadow"),
    PrimaryKeyConstraint("run_no", "slice_column", "slice_value"),
    Index("rollout_nights_day", "job", "day"),
    comment="How champion and challenger answered in each run of a rollout, before any label",
)
