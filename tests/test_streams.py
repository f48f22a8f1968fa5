from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.streams import ahead, mapped, rebatch

unhurried = settings(deadline=None)  # the machine may be busy


class Counted:
    """Numbers from 0, which remembers how many were drawn, in which thread, and whether it was closed."""

    def __init__(self, last: int = 1_000_000) -> None:
        self.last = last
        self.drawn = 0
        self.closed = False
        self.threads: set[str] = set()

    def numbers(self) -> Iterator[int]:
        try:
            for number in range(self.last):
                self.drawn += 1
                self.threads.add(threading.current_thread().name)
                yield number
        finally:
            self.closed = True


def breaks_at(last: int) -> Iterator[int]:
    yield from range(last)
    raise ConnectionError("the source went away")


def batches(sizes: list[int]) -> list[pa.RecordBatch]:
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    schema = pa.schema([("n", pa.int64()), ("text", pa.string())])
    return [
        pa.record_batch([list(range(end - size, end)), [f"row {n}" for n in range(end - size, end)]], schema)
        for size, end in zip(sizes, ends, strict=True)
    ]


def settled(condition: Callable[[], bool]) -> bool:
    """Whether a condition that another thread brings about comes true within five seconds."""
    until = time.monotonic() + 5
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()


def own_threads() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith(("ahead", "mapped"))]


@unhurried
@given(st.lists(st.integers(0, 9), max_size=20), st.integers(1, 7))
def test_rebatched_rows_are_the_same_in_batches_of_the_exact_size(sizes: list[int], rows: int) -> None:
    cut = list(rebatch(batches(sizes), rows))
    assert [n for batch in cut for n in batch["n"].to_pylist()] == list(range(sum(sizes)))
    assert all(batch.num_rows == rows for batch in cut[:-1])
    assert all(1 <= batch.num_rows <= rows for batch in cut[-1:])


def test_a_stream_of_nothing_but_empty_batches_stays_empty() -> None:
    assert list(rebatch(batches([0, 0, 0]), 5)) == []


def test_rebatching_holds_no_more_than_it_needs() -> None:
    source = Counted()
    stream = rebatch((batches([3])[0] for _ in source.numbers()), 6)
    next(stream)
    assert source.drawn == 2


@unhurried
@given(st.lists(st.integers() | st.none()), st.integers(1, 5))
def test_items_drawn_ahead_keep_their_order(items: list[int | None], depth: int) -> None:
    assert list(ahead(items, depth)) == items


def test_items_are_drawn_in_one_thread_of_their_own() -> None:
    source = Counted(20)
    assert list(ahead(source.numbers())) == list(range(20))
    assert source.threads == {"ahead_0"}


def test_a_producers_error_reaches_the_consumer_after_the_items_before_it() -> None:
    stream = ahead(breaks_at(7), depth=2)
    assert [next(stream) for _ in range(7)] == list(range(7))
    with pytest.raises(ConnectionError, match="went away"):
        next(stream)
    assert own_threads() == []


def test_no_more_than_the_depth_is_drawn_ahead() -> None:
    source = Counted()
    stream = ahead(source.numbers(), depth=3)
    assert source.drawn == 0
    assert next(stream) == 0
    assert settled(lambda: source.drawn == 4)
    time.sleep(0.05)
    assert source.drawn == 4
    stream.close()  # type: ignore[attr-defined]


def test_a_consumer_that_stops_early_leaves_no_thread_and_closes_the_producer() -> None:
    source = Counted()
    numbers = source.numbers()  # kept, so that it is not collected
    stream = ahead(numbers)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert source.closed
    assert own_threads() == []


def test_a_consumer_that_fails_leaves_no_thread() -> None:
    source = Counted()

    def consume() -> None:
        for number in ahead(source.numbers()):
            raise ValueError(f"cannot use {number}")

    with pytest.raises(ValueError, match="cannot use 0"):
        consume()
    assert source.closed
    assert own_threads() == []


def test_stages_drawn_ahead_of_each_other_run_at_the_same_time() -> None:
    meeting = threading.Barrier(2, timeout=5)

    def producer() -> Iterator[int]:
        yield 1
        meeting.wait()
        yield 2

    stream = ahead(producer())
    assert next(stream) == 1
    meeting.wait()
    assert list(stream) == [2]


@unhurried
@given(st.lists(st.integers()), st.integers(1, 4))
def test_mapped_results_keep_the_order_of_their_items(items: list[int], workers: int) -> None:
    assert list(mapped(lambda item: item + 1, items, workers)) == [item + 1 for item in items]


def test_a_slow_item_does_not_let_later_results_pass() -> None:
    released = threading.Event()

    def function(item: int) -> int:
        if item == 0:
            assert released.wait(5)
        released.set()
        return item

    assert list(mapped(function, range(10), workers=2)) == list(range(10))


def test_an_error_in_a_worker_is_raised_in_its_turn_and_stops_the_rest() -> None:
    source = Counted()
    stream = mapped(lambda item: 10 // (3 - item), source.numbers(), workers=2)
    assert [next(stream), next(stream), next(stream)] == [3, 5, 10]
    with pytest.raises(ZeroDivisionError):
        next(stream)
    assert source.closed
    assert source.drawn <= 8
    assert own_threads() == []


def test_an_error_of_the_items_reaches_the_consumer_of_mapped() -> None:
    with pytest.raises(ConnectionError, match="went away"):
        list(mapped(str, breaks_at(9), workers=2))
    assert own_threads() == []


def test_at_most_twice_as_many_items_as_workers_are_under_way() -> None:
    source = Counted()
    numbers = source.numbers()  # kept, so that it is not collected
    stream = mapped(str, numbers, workers=2)
    next(stream)
    assert source.drawn == 5
    stream.close()  # type: ignore[attr-defined]
    assert source.closed
