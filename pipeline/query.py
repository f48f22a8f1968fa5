"""The SQL that a declaration writes, bounded by the engine: declared sources only, known at the cut-off only.

Queries are read as PostgreSQL reads them. Where one names a declared source, the engine puts that source's
table with only the rows that were known, `known_at <= :cutoff` (law 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import sqlglot
from sqlglot import Token, TokenType, exp
from sqlglot.optimizer.normalize_identifiers import normalize_identifiers
from sqlglot.optimizer.scope import Scope, traverse_scope

from pipeline.errors import ExtractError, nearest
from pipeline.job import Source
from pipeline.partition import BIND_NAMES

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Query:
    """One declared query: the key of the declaration that holds it, and its SQL."""

    place: str
    sql: str


@dataclass(frozen=True)
class Dialect:
    """How one database writes identifiers and binds."""

    quote: Callable[[str], str]
    bind: Callable[[str], str]
    literal: Callable[[str], str] = str
    """Escapes the SQL around the binds, where the driver would find binds inside literals."""
    relation: Callable[[Source, str], str] = lambda _, table: table
    """What stands for a source's quoted table; the leak probe puts an altered copy there."""


class Reader(Protocol):
    """One consistent view of the source; every statement sees the same state."""

    dialect: Dialect
    consistent: bool
    """Whether all statements of this reader see one state of the source."""
    typed: bool
    """Whether columns have types of their own (SQLite sends dates and instants as text)."""

    def batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        """The rows of a statement, streamed; at least one batch, so that the schema is known."""
        ...


def compose(query: Query, sources: Mapping[str, Source], dialect: Dialect) -> str:
    """The statement to run: the declared SQL over its sources as they were known at the cut-off.

    Raises ExtractError where the query of an older version names a source that is declared no more.
    """
    parsed = parse(query.sql)
    edits = [
        *((bind.start, bind.end, dialect.bind(bind.name)) for bind in parsed.binds()),
        *_known_tables(parsed, sources, dialect),
    ]
    pieces, position = [], 0
    for start, end, text in sorted(edits):
        pieces += [dialect.literal(query.sql[position:start]), text]
        position = end
    pieces.append(dialect.literal(query.sql[position : parsed.end]))
    return f"select * from ({''.join(pieces)}\n) q"


@dataclass(frozen=True)
class Bind:
    """One `:name` and where it stands in the text."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class ParsedQuery:
    """One query as a tree, and the text's tokens."""

    tree: exp.Query
    tokens: list[Token]

    @property
    def end(self) -> int:
        """Where the statement ends, before trailing semicolons and comments."""
        return self.tokens[-1].end + 1

    def binds(self) -> Iterator[Bind]:
        """Every bind outside of literals and comments; an array slice [1:2] has a colon too."""
        for colon, name in pairwise(self.tokens):
            adjoining = colon.token_type == TokenType.COLON and name.start == colon.end + 1
            if adjoining and name.text in BIND_NAMES:
                yield Bind(name.text, colon.start, name.end + 1)

    def tables(self) -> list[exp.Table]:
        """The tables that are read: table functions and the query's own expressions left out."""
        own = {
            id(table)
            for scope in traverse_scope(self.tree)
            for table in scope.tables
            if _is_own(table, scope.sources.get(table.alias_or_name))
        }
        named = (t for t in self.tree.find_all(exp.Table) if isinstance(t.this, exp.Identifier))
        return [t for t in named if id(t) not in own and not isinstance(t.parent, exp.Into)]


@lru_cache(maxsize=256)
def parse(sql: str) -> ParsedQuery:
    """Raises ValueError, saying what is there, unless the text is one query."""
    try:
        tokens = sqlglot.tokenize(sql, read="postgres")
        while tokens and tokens[-1].token_type == TokenType.SEMICOLON:
            tokens.pop()
        if not tokens:
            raise ValueError("nothing")
        if tokens[0].token_type not in (TokenType.SELECT, TokenType.WITH, TokenType.L_PAREN):
            raise ValueError(tokens[0].text[:40].upper())
        statements = [s for s in sqlglot.parse(sql, read="postgres") if s and s.key != "semicolon"]
    except sqlglot.TokenError:
        raise ValueError("a quote or a comment that does not end") from None
    except sqlglot.ParseError as error:
        place = error.errors[0]
        raise ValueError(f"no SQL at line {place['line']}, column {place['col']} of it") from None
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        raise ValueError(" and ".join(statement.key.upper() for statement in statements))
    return ParsedQuery(normalize_identifiers(statements[0], dialect="postgres"), tokens)


def _is_own(table: exp.Table, source: object) -> bool:
    if not isinstance(source, Scope) or table.db:
        return False
    expression = source.expression.find_ancestor(exp.CTE)
    return expression is not None and expression.alias == table.name


def _known_tables(
    parsed: ParsedQuery, sources: Mapping[str, Source], dialect: Dialect
) -> Iterator[tuple[int, int, str]]:
    for table in parsed.tables():
        if table.name not in sources:
            raise ExtractError(
                f"source {table.name!r} must be declared; {nearest(table.name, tuple(sources))}"
            )
        alias = "" if table.alias else f" as {dialect.quote(table.name)}"
        place = table.this.meta
        yield place["start"], place["end"] + 1, f"({_known(sources[table.name], dialect)}){alias}"


def _known(source: Source, dialect: Dialect) -> str:
    table = dialect.literal(".".join(dialect.quote(part) for part in source.table.split(".")))
    table = dialect.relation(source, table)
    if source.known_at is None:
        return f"select * from {table}"
    known_at = dialect.literal(dialect.quote(source.known_at))
    return f"select * from {table} where {known_at} <= {dialect.bind('cutoff')}"
