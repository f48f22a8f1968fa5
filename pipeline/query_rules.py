"""What a declared query may not do: write, read what is not declared, read the clock, go unbounded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from sqlglot import exp

from pipeline.errors import nearest
from pipeline.job import Source
from pipeline.partition import BIND_NAMES
from pipeline.query import ParsedQuery, Query, parse

_WRITES = (exp.DML, exp.DDL, exp.Into, exp.Lock, exp.Command)
_CLOCK_OR_CHANCE = re.compile(
    r"now|today|timeofday|sysdate|getdate|curdate|curtime|localtime|localtimestamp|utc_date|utc_time"
    r"|(clock|statement|transaction|unix|utc)_timestamp"
    r"|(get_)?current_(date|time|timestamp|datetime|localtime|localtimestamp)"
    r"|rand|random|random_normal|randomblob|uuid|uuidv[47]|gen_random_uuid"
)
_CLOCK_BELOW = {"age": 2, "date": 1, "time": 1, "datetime": 1, "julianday": 1, "unixepoch": 1, "strftime": 2}
"""Functions that read the clock when they get fewer arguments than this."""
_CLOCK_WORD = re.compile(r"\s*(now|today|tomorrow|yesterday)(\s+(allballs|[\d:.]+.*))?\s*", re.IGNORECASE)
_PURE_TABLE_FUNCTION = re.compile(
    r"(exploding_)?generate_series|unnest|string_to_table|regexp_(matches|split_to_table)"
    r"|jsonb?_(each|each_text|array_elements|array_elements_text|object_keys)"
)


def query_faults(query: Query, sources: Mapping[str, Source]) -> list[str]:
    """What is wrong with a query, one sentence each; none when it may run."""
    try:
        parsed = parse(query.sql)
    except ValueError as error:
        return [f"must be one SELECT statement; got {error}"]
    return [
        *_write_faults(parsed),
        *_table_faults(parsed, sources),
        *_table_function_faults(parsed),
        *clock_faults(parsed),
        *_bind_faults(parsed),
    ]


def _write_faults(parsed: ParsedQuery) -> Iterator[str]:
    for kind in sorted({node.key.upper() for node in parsed.tree.find_all(*_WRITES)}):
        yield f"must only read; got {kind}"


def _table_faults(parsed: ParsedQuery, sources: Mapping[str, Source]) -> Iterator[str]:
    names = {".".join(part.name for part in table.parts) for table in parsed.tables()}
    for name in sorted(names - set(sources)):
        yield f"table {name[:60]!r} must be a declared source; {nearest(name, tuple(sources))}"
    hidden = {source.table: alias for alias, source in sources.items()}
    for name in sorted({cte.alias for cte in parsed.tree.find_all(exp.CTE)} & set(hidden)):
        yield f"expression {name!r} hides the table of source {hidden[name]!r}; give it another name"


def _table_function_faults(parsed: ParsedQuery) -> Iterator[str]:
    places = parsed.tree.find_all(exp.Table, exp.Lateral)
    names = {_name(place.this) for place in places if isinstance(place.this, exp.Func)}
    for name in sorted(names):
        if not _PURE_TABLE_FUNCTION.fullmatch(name):
            yield f"table function {name[:60]!r} may read what is not declared; declare a source instead"


def clock_faults(parsed: ParsedQuery) -> Iterator[str]:
    """What reads the clock or draws lots, one sentence each."""
    names = {_name(f) for f in parsed.tree.find_all(exp.Func) if _is_clock_or_chance(f)}
    names |= {"tablesample" for _ in parsed.tree.find_all(exp.TableSample)}
    names |= {
        repr(token.text)
        for token in parsed.tokens
        if token.token_type.name.endswith("STRING") and _CLOCK_WORD.fullmatch(token.text)
    }
    for name in sorted(names):
        yield f"{name} must not be used, or a replay reads other rows; use :cutoff or :day"


def _is_clock_or_chance(function: exp.Func) -> bool:
    name = _name(function)
    anonymous = isinstance(function, exp.Anonymous)
    arguments = function.expressions if anonymous else [a for a in function.args.values() if a]
    return bool(_CLOCK_OR_CHANCE.fullmatch(name)) or len(arguments) < _CLOCK_BELOW.get(name, 0)


def _name(function: exp.Func) -> str:
    return (function.name if isinstance(function, exp.Anonymous) else function.sql_name()).lower()


def _bind_faults(parsed: ParsedQuery) -> Iterator[str]:
    written = {bind.name for bind in parsed.binds()}
    read = {node.name for node in parsed.tree.find_all(exp.Placeholder, exp.Parameter)}
    accepted = f":{', :'.join(BIND_NAMES)}"
    for name in sorted(read - set(BIND_NAMES)):
        yield f"bind :{name[:40]} must be one of {accepted}; {nearest(name, BIND_NAMES)}"
    for name in sorted((read ^ written) & set(BIND_NAMES)):
        yield f"bind :{name} must stand alone: no space after its colon, no array slice around it"
    if not read:
        yield f"must be bounded by one of {accepted}; got no bind"
