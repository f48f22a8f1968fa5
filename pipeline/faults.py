"""The schema's verdict on a declaration as sentences: the place, what must hold, what was got."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from difflib import get_close_matches
from reprlib import Repr
from typing import Any

from pydantic import ValidationError

from pipeline.errors import nearest
from pipeline.fields import Disagreement, Place

_SHORT = Repr()
_SHORT.maxstring = 60
_MUST = {
    "bool_type": "must be true or false",
    "date_type": "must be a date, written YYYY-MM-DD without quotes",
    "dict_type": "must be a mapping of keys",
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "model_type": "must be a mapping of keys",
    "string_type": "must be text",
    "too_short": "must have at least one entry",
    "tuple_type": "must be a list",
}


def schema_faults(error: ValidationError, schema: Mapping[str, Any]) -> Iterator[tuple[Place, str]]:
    """Every fault that pydantic found: its place and its sentence; `schema` is the JSON Schema."""
    for problem in error.errors(include_url=False):
        place = tuple(part for part in problem["loc"] if part != "[key]")
        cause = problem.get("ctx", {}).get("error")
        if isinstance(cause, Disagreement):
            yield from (((*place[:-1], *below), sentence) for below, sentence in cause.faults)
        else:
            yield place, _sentence(place, problem, schema)


def _sentence(place: Place, problem: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    kind, got = problem["type"], problem.get("input")
    if kind == "extra_forbidden":
        return f"unknown key {_shown(place[-1])}; " + nearest(str(place[-1]), _keys(place[:-1], schema))
    if kind == "missing":
        return f"key {place[-1]!r} is missing"
    if kind == "literal_error":
        accepted = problem["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        close = get_close_matches(str(got), accepted, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        return f"must be one of {', '.join(accepted)}; got {_shown(got)}{hint}"
    sentence = _MUST.get(kind) or problem["msg"].removeprefix("Value error, ")
    sentence = sentence.replace("Input should be", "must be")
    return sentence if "got " in sentence else f"{sentence}; got {_shown(got)}"


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, tuple):
        return "a list" if value else "an empty list"
    if value is None:
        return "nothing"
    return str(value) if isinstance(value, date) else _SHORT.repr(value)


def _keys(place: Place, schema: Mapping[str, Any]) -> list[str]:
    """The keys that the schema takes at a place."""
    node = schema
    for part in place:
        node = node.get("properties", {}).get(part) or node["additionalProperties"]
        for option in node.get("anyOf", [node]):
            if "$ref" in option:
                node = schema["$defs"][option["$ref"].rsplit("/", 1)[-1]]
    return list(node["properties"])
