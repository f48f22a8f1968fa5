"""Options that several commands share, and what they are read into."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.environment import Environment
    from pipeline.planning import ModelPolicy

JobName = Annotated[str, typer.Argument(metavar="JOB", help="Stem of dags/JOB.yaml.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON line on stdout.")]
Day = Annotated[str, typer.Option("--day", metavar="YYYY-MM-DD", help="The business day.")]
First = Annotated[str, typer.Option("--from", metavar="YYYY-MM-DD", help="First day, included.")]
Last = Annotated[str, typer.Option("--to", metavar="YYYY-MM-DD", help="Last day, included.")]
SomeFirst = Annotated[str | None, typer.Option("--from", metavar="YYYY-MM-DD", help="First day.")]
SomeLast = Annotated[str | None, typer.Option("--to", metavar="YYYY-MM-DD", help="Last day.")]
AsOf = Annotated[
    str | None,
    typer.Option("--as-of", metavar="INSTANT", help="Labels known later are absent; now by default."),
]
EffectiveFrom = Annotated[
    str | None,
    typer.Option("--effective-from", metavar="INSTANT", help="When it is in force; now by default."),
]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="current|as-of|VERSION", help="Which model version answers."),
]
Approver = Annotated[str, typer.Option("--approved-by", metavar="WHO", help="A declared approver.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept for ever.")]


def environment() -> Environment:
    """Where this command works, as the environment variables say; raises UsageError where these are wrong."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from pipeline.environment import Environment
    from pipeline.errors import UsageError
    from pipeline.settings import Settings

    try:
        return Environment(Settings())
    except SettingsError as error:
        message = f'{error}: must be JSON, such as NIGHTSHIFT_CHANNELS=\'{{"ops": "slack://…"}}\''
    except ValidationError as error:
        told = [(str(each["loc"][0]).upper(), each["msg"]) for each in error.errors()]
        message = "; ".join(f"NIGHTSHIFT_{name} must be right; got: {fault}" for name, fault in told)
    # Raised outside the handlers, without their causes, which quote the environment.
    raise UsageError(message)


def policy(text: str | None, default: ModelPolicy) -> ModelPolicy:
    """Which model version is asked for, the default where none is."""
    from pipeline.planning import parse_policy

    return default if text is None else parse_policy(text)
