"""The SQL that a declaration writes, bounded by the engine: declared sources only, known at the cut-off only.

A query sees its declared sources as common table expressions of the same alias; where a source says when its
rows were known, the expression keeps only `known_at <= :cutoff` (law 3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import sqlglot
from sqlglot import exp
from sqlglot.tokens import TokenType

from pipeline.job import Job, Source
from pipeline.partition import BIND_NAMES

Quote = Callable[[str], str]
"""Quotes one identifier for a database."""


@dataclass(frozen=True)
class Query:
    """One declared query: the key of the declaration that holds it, and its SQL."""

    place: str
    sql: str


@dataclass(frozen=True)
class Dialect:
    """How one database writes identifiers, binds and inlined common table expressions."""

    quote: Quote
    bind: Callable[[str], str]
    inline: str = ""
    """What stands between AS and the parenthesis, where the database must be told to inline."""
    literal: Callable[[str], str] = str
    """Escapes the SQL around the binds, where the driver would find binds inside literals."""


def declared_queries(job: Job) -> list[Query]:
    """Every query of a job that a night or its training runs, in the order in which data flows."""
    declaration = job.declaration
    queries = [Query("extract.sql", declaration.extract.sql)]
    queries += [Query(f"history.{name}.sql", h.sql) for name, h in declaration.history.items()]
    if declaration.validate_.parameters is not None:
        queries.append(Query("validate.parameters", declaration.validate_.parameters))
    if declaration.outcomes is not None:
        queries.append(Query("outcomes.sql", declaration.outcomes.sql))
    return queries


def query_faults(query: Query, sources: Mapping[str, Source]) -> list[str]:
    """What is wrong with a query, one sentence each: not one SELECT, unknown tables, no bound."""
    try:
        tree = _parse(query)
    except (ValueError, sqlglot.errors.SqlglotError) as error:
        return [f"must be one SELECT statement; got {str(error).splitlines()[0]}"]
    faults = [
        f"table {name!r} must be one of the declared sources: {', '.join(sources)}"
        for name in _named_tables(tree)
        if name not in sources
    ]
    binds = {placeholder.name for placeholder in tree.find_all(exp.Placeholder)}
    accepted = f":{', :'.join(BIND_NAMES)}"
    faults += [f"bind :{name} must be among {accepted}" for name in sorted(binds - set(BIND_NAMES))]
    if not binds:
        faults.append(f"must be bounded by one of {accepted}; got no bind at all")
    return faults


def compose(query: Query, sources: Mapping[str, Source], dialect: Dialect) -> str:
    """The statement to run: the declared SQL over its sources as they were known at the cut-off."""
    named = _named_tables(_parse(query))
    expressions = [
        f"{dialect.quote(alias)} as {dialect.inline}({_known(source, dialect)})"
        for alias, source in sources.items()
        if alias in named
    ]
    prefix = f"with {', '.join(expressions)} " if expressions else ""
    return f"{prefix}select * from ({_with_binds(query.sql, dialect)}) q"


def _known(source: Source, dialect: Dialect) -> str:
    table = ".".join(dialect.quote(part) for part in source.table.split("."))
    if source.known_at is None:
        return f"select * from {table}"
    return f"select * from {table} where {dialect.quote(source.known_at)} <= {dialect.bind('cutoff')}"


def _parse(query: Query) -> exp.Expr:
    statements = [s for s in sqlglot.parse(query.sql, read="postgres") if s is not None]
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        raise ValueError(f"{len(statements)} statements or another kind")
    return statements[0]


def _named_tables(tree: exp.Expr) -> list[str]:
    """Names of the tables that a query reads, table functions and its own expressions left out."""
    own = {expression.alias_or_name for expression in tree.find_all(exp.CTE)}
    names = [
        ".".join(part.name for part in table.parts)
        for table in tree.find_all(exp.Table)
        if isinstance(table.this, exp.Identifier)
    ]
    return sorted(set(names) - own)


def _with_binds(sql: str, dialect: Dialect) -> str:
    """Replace `:name` outside of literals and comments by what the database takes for it."""
    tokens = sqlglot.tokenize(sql, read="postgres")
    pieces, position = [], 0
    for colon, name in zip(tokens, tokens[1:], strict=False):
        if colon.token_type == TokenType.COLON and name.start == colon.end + 1:
            pieces += [dialect.literal(sql[position : colon.start]), dialect.bind(name.text)]
            position = name.end + 1
    end = tokens[-1].start if tokens[-1].token_type == TokenType.SEMICOLON else len(sql)
    return "".join([*pieces, dialect.literal(sql[position:end])]) + "\n"
