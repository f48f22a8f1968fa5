from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import RegistryError, UsageError
from pipeline.lifecycle.promote import (
    Kind,
    Promotion,
    check_approver,
    in_force,
    predecessor,
    rollback_version,
    timeline,
)

START = datetime(2013, 5, 1, tzinfo=UTC)
END = START + timedelta(days=1000)


def promotion(no: int, version: int, day: float, kind: Kind = "promote") -> Promotion:
    return Promotion(
        promotion_no=no,
        job="toy",
        version=version,
        previous_version=None,
        kind=kind,
        effective_from=START + timedelta(days=day),
        recorded_at=START + timedelta(days=no),
        actor="ben",
        approved_by="ana",
        reason="better",
        model_sha256="0" * 64,
    )


def history(*moves: int | str) -> list[Promotion]:
    """A move a day: a version is promoted, `back` rolls back."""
    rows: list[Promotion] = []
    for day, move in enumerate(moves):
        if isinstance(move, int):
            rows.append(promotion(day, move, day))
        else:
            rows.append(promotion(day, rollback_version(rows, END), day, "rollback"))
    return rows


def champions(rows: list[Promotion]) -> list[int]:
    return [row.version for row in rows]


def champion(rows: list[Promotion], day: float) -> int | None:
    row = in_force(rows, START + timedelta(days=day))
    return None if row is None else row.version


def test_the_row_in_force_is_the_last_one_that_took_effect() -> None:
    rows = history(1, 2)
    assert [champion(rows, day) for day in (-0.1, 0, 0.9, 1, 99)] == [None, 1, 1, 2, 2]


def test_a_back_dated_promotion_is_in_force_in_the_past_only_until_the_next_one() -> None:
    rows = [promotion(0, 1, 0), promotion(1, 2, 10), promotion(2, 3, 5)]
    assert [champion(rows, day) for day in (4, 5, 9, 10)] == [1, 3, 3, 2]


def test_of_two_rows_of_one_instant_the_later_recorded_one_wins() -> None:
    assert champion([promotion(1, 2, 0), promotion(0, 1, 0)], 0) == 2


def test_a_promotion_of_tomorrow_is_neither_in_force_nor_rolled_back_today() -> None:
    rows = [*history(1, 2), promotion(9, 3, 20)]
    assert champion(rows, 5) == 2
    assert rollback_version(rows, START + timedelta(days=5)) == 1


@pytest.mark.parametrize(
    ("moves", "expected"),
    [
        ((1, 2), 1),
        ((1, 2, 3, "back"), 1),
        ((1, 2, "back", 3), 1),
        ((1, 2, "back", 3, "back", 4), 1),
        ((1, 2, 1), 2),
        ((1, 2, 2), 1),
        ((1, 2, 3, "back", 3), 2),
        ((1, 2, 3, 4, "back", "back", 2), 1),
    ],
)
def test_a_roll_back_returns_to_the_last_champion_that_was_not_undone(
    moves: tuple[int | str, ...], expected: int
) -> None:
    assert rollback_version(history(*moves), END) == expected


@pytest.mark.parametrize("moves", [(), (1,), (1, 1), (1, 2, "back")])
def test_without_an_earlier_champion_a_roll_back_says_what_to_do(moves: tuple[int | str, ...]) -> None:
    with pytest.raises(RegistryError, match=r"got none, as .*nightshift promote"):
        rollback_version(history(*moves), END)


def test_a_roll_back_undoes_promotions_that_were_back_dated_behind_it_too() -> None:
    rows = [promotion(0, 1, 0), promotion(1, 2, 5), promotion(2, 1, 10, "rollback"), promotion(3, 3, 7)]
    with pytest.raises(RegistryError, match="version 1 is the first champion"):
        rollback_version(rows, END)


@pytest.mark.parametrize(
    ("moves", "version", "expected"),
    [
        ((1, 2, 3), 3, 2),
        ((1, 2, 3), 2, 1),
        ((1, 2, 3), 1, None),
        ((1, 2, 3), 9, None),
        ((1, 2, "back", 3), 3, 1),
        ((1, 2, "back", 3), 2, 1),
        ((1, 2, 3, "back"), 2, 1),
        ((1, 2, 1), 1, 2),
    ],
)
def test_behind_a_version_stands_the_champion_that_it_replaced(
    moves: tuple[int | str, ...], version: int, expected: int | None
) -> None:
    assert predecessor(history(*moves), version) == expected


@st.composite
def histories(draw: st.DrawFn) -> list[Promotion]:
    """Any history that the engine can write; roll-backs only where there is something to return to."""
    rows: list[Promotion] = []
    for day, move in enumerate(draw(st.lists(st.integers(0, 4), max_size=12))):
        if move:
            rows.append(promotion(day, move, day))
        else:
            try:
                target = rollback_version(rows, END)
            except RegistryError:
                continue
            rows.append(promotion(day, target, day, "rollback"))
    return rows


@given(histories(), st.integers(1, 5))
def test_a_roll_back_undoes_the_last_promotion(rows: list[Promotion], version: int) -> None:
    before = in_force(rows, END)
    if before is not None and before.version != version:
        promoted = [*rows, promotion(99, version, 99)]
        assert rollback_version(promoted, END) == before.version


@given(histories())
def test_a_roll_back_changes_the_champion_to_an_earlier_one(rows: list[Promotion]) -> None:
    try:
        target = rollback_version(rows, END)
    except RegistryError:
        return
    assert target in champions(rows)
    assert target != champions(timeline(rows))[-1]


@given(histories())
def test_repeated_roll_backs_end_at_the_first_champion(rows: list[Promotion]) -> None:
    for number in range(100, 100 + len(rows)):
        try:
            rows = [*rows, promotion(number, rollback_version(rows, END), number, "rollback")]
        except RegistryError:
            break
    with pytest.raises(RegistryError):
        rollback_version(rows, END)
    assert champions(rows)[:1] == champions(rows)[-1:]


@given(st.permutations(history(1, 2, 3, "back", 4)))
def test_the_order_in_which_rows_are_read_does_not_matter(rows: list[Promotion]) -> None:
    assert rollback_version(rows, END) == 2
    assert champion(rows, 99) == 4


def test_only_a_declared_approver_may_approve() -> None:
    check_approver("ana", ("ana", "ben"))
    with pytest.raises(UsageError, match=r"got 'anna'; did you mean 'ana'\? \(owners.approvers: ana, ben\)"):
        check_approver("anna", ("ana", "ben"))
