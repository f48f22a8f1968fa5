"""Streams of record batches: fixed batch sizes, and stages that overlap in threads with bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import pyarrow as pa

from pipeline.run import BATCH_ROWS

T = TypeVar("T")
R = TypeVar("R")


def rebatch(batches: Iterable[pa.RecordBatch], rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of exactly `rows` (the last one shorter); an empty stream stays empty."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        held.append(batch)
        count += batch.num_rows
        if count >= rows:
            table = pa.Table.from_batches(held).combine_chunks()
            whole = count - count % rows
            yield from table.slice(0, whole).to_batches(max_chunksize=rows)
            held, count = table.slice(whole).to_batches(), count - whole
    if count:
        yield from pa.Table.from_batches(held).combine_chunks().to_batches()


def ahead(items: Iterable[T], depth: int = 4) -> Iterator[T]:
    """Draw `items` in a thread of their own, at most `depth` ahead; an error there is raised here."""
    iterator = iter(items)
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        drawn = deque(pool.submit(next, iterator, end) for _ in range(depth))
        try:
            while (item := drawn.popleft().result()) is not end:
                drawn.append(pool.submit(next, iterator, end))
                yield item  # type: ignore[misc]  # the end is no item
        finally:
            _cancel(drawn)
            pool.submit(_close, iterator).result()


def mapped(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """`function` over `items` in `workers` threads, results in order, at most twice as many under way."""
    iterator = iter(items)
    with ThreadPoolExecutor(workers, thread_name_prefix="mapped") as pool:
        under_way: deque[Future[R]] = deque()
        try:
            under_way.extend(pool.submit(function, item) for item in islice(iterator, 2 * workers))
            while under_way:
                result = under_way.popleft().result()
                under_way.extend(pool.submit(function, item) for item in islice(iterator, 1))
                yield result
        finally:
            _cancel(under_way)
            _close(iterator)


def _cancel(futures: Iterable[Future[Any]]) -> None:
    for future in futures:
        future.cancel()


def _close(iterator: Iterator[object]) -> None:
    """Let a generator end what it opened now, and not when it is collected."""
    if isinstance(iterator, Generator):
        iterator.close()
