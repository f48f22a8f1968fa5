"""Readiness on the toy job: what is right passes, what is broken fails, each with evidence of a run."""

from __future__ import annotations

import pytest
from support.toy import JOB, NIGHT, Toy, quiet_mlflow

from pipeline.readiness.assess import assess, choose
from pipeline.readiness.rubric import Answer

pytestmark = pytest.mark.integration


def assessed(toy: Toy) -> dict[str, Answer]:
    with quiet_mlflow():
        found = assess(toy.env, choose(toy.env, JOB, NIGHT, None))
    return {each.item.id: each.answer for each in found}
