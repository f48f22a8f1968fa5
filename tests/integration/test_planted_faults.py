"""Faults planted in the source, each through a whole night: what is published, withheld, refused, told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from pydantic import SecretStr
from support.toy import NIGHT, YESTERDAY, Toy, create_tables, fill

from pipeline.adapters.embedded import EmbeddedServer
from pipeline.errors import ChangedColumn, EmptyPartition, FatalError, MissingTable, ValidationError

pytestmark = pytest.mark.integration

DEFAULT, RULE = 0.25, 0.75
BALL, DOLL = 3, 4
"""Ids of a kind that the rule answers for, and of one that it does not know."""


def plant(toy: Toy, change: str, *ids: int) -> None:
    """Change rows of the night's source table."""
    toy.execute(f"update source.toy set {change} where day = %s and id = any(%s)", NIGHT.day, list(ids))


def origins(toy: Toy) -> dict[str, int]:
    """How many published rows each score source has."""
    return dict(Counter(row["score_source"] for row in toy.published()))


def reasons(toy: Toy) -> list[tuple[str, str, str]]:
    """Verdict, rule and key of each line in the last run's quarantine."""
    return [(line["verdict"], line["rule"], line["key"]) for line in toy.quarantine()]


def assert_refused(toy: Toy, error: type[FatalError], *words: str) -> None:
    """The night fails with that error, publishes nothing, and yesterday stays as it was published before."""
    yesterday = toy.published(YESTERDAY), toy.parquet(YESTERDAY)
    with pytest.raises(error) as caught:
        toy.night()
    failed = toy.last_run()
    assert [word for word in words if word not in str(caught.value)] == []
    assert (caught.value.exit_code, failed["status"], failed["error_type"]) == (1, "failed", error.__name__)
    assert toy.published() == []
    assert not Path(toy.env.store.current_file("toy", NIGHT).path).exists()
    assert toy.published(YESTERDAY) == yesterday[0] != []
    assert toy.parquet(YESTERDAY).equals(yesterday[1])


# Rows that are withheld


def test_a_row_without_its_key_is_withheld(toy: Toy) -> None:
    plant(toy, "id = null", 7)
    record = toy.night()
    assert (record["status"], record["rows_in"], record["rows_withheld"]) == ("published", 200, 1)
    assert len(toy.published()) == 199
    assert reasons(toy) == [("withheld", "engine:key_not_null", '{"id":null}')]


def test_every_copy_of_a_duplicated_key_is_withheld(toy: Toy) -> None:
    toy.fill(NIGHT, rows=1, first_id=9)
    record = toy.night()
    assert (record["rows_in"], record["rows_scored"], record["rows_withheld"]) == (201, 199, 2)
    assert 9 not in toy.by_id()
    assert reasons(toy) == [("withheld", "engine:key_unique", '{"id":9}')] * 2


def test_a_row_of_another_day_is_withheld(toy: Toy) -> None:
    """The extract asks for a range of instants, and one row's day disagrees with its instant."""
    by_instants = toy.own_extract(
        "day = :day",
        "known_at >= :day_start - interval '12 hours' and known_at < :day_start + interval '12 hours'",
    )
    toy.promote(by_instants)
    plant(toy, "day = day + 1", 11)
    record = toy.night()
    assert (record["rows_in"], record["rows_withheld"], record["model_version"]) == (200, 1, by_instants)
    assert reasons(toy) == [("withheld", "engine:in_partition", '{"id":11}')]
    assert 11 not in toy.by_id()
    assert 11 not in set(toy.parquet()["id"])


# Nights that are refused


def test_text_in_a_number_column_refuses_the_night(toy: Toy) -> None:
    toy.night(YESTERDAY)
    toy.execute("alter table source.toy alter column amount type text")
    assert_refused(toy, ChangedColumn, "column 'amount' must be float; got text")


def test_missing_columns_refuse_the_night_and_are_all_named(toy: Toy) -> None:
    toy.night(YESTERDAY)
    toy.execute("alter table source.toy drop column amount, drop column note")
    assert_refused(toy, ChangedColumn, "'amount' must be there; it is gone", "'note' must be there")


def test_a_missing_table_refuses_the_night(toy: Toy) -> None:
    toy.night(YESTERDAY)
    toy.execute("drop table source.toy_sales")
    assert_refused(toy, MissingTable)


def test_an_empty_day_refuses_the_night(toy: Toy) -> None:
    toy.night(YESTERDAY)
    toy.execute("delete from source.toy where day = %s", NIGHT.day)
    assert_refused(toy, EmptyPartition, "must have rows", "empty_is_normal")


def test_forty_percent_of_bad_rows_refuse_the_night_and_are_told(toy: Toy) -> None:
    toy.night(YESTERDAY)
    plant(toy, "amount = -123.456", *range(1, 81))
    assert_refused(toy, ValidationError, "40.0%", "80 of 200", "at most 30.0%", "amount: 80 rows")
    assert len({line["row"] for line in toy.quarantine()}) == 80
    assert "123.456" not in toy.last_run()["error_message"]


def test_half_a_day_refuses_the_night(toy: Toy) -> None:
    toy.night(YESTERDAY)
    toy.execute("delete from source.toy where day = %s and id > 5", NIGHT.day)
    assert_refused(toy, ValidationError, "expect_table_row_count_to_be_between", "observed 5")


# Rows that no model sees


def test_impossible_numbers_are_quarantined_and_answered_by_the_fallback(toy: Toy) -> None:
    negative, missing = "expect_column_values_to_be_between", "engine:not_null"
    for key, value in {
        3: "-1",
        6: "'NaN'",
        9: "'Infinity'",
        12: "'-Infinity'",
        15: "null",
        DOLL: "-1",
    }.items():
        plant(toy, f"amount = {value}", key)
    record = toy.night()
    assert (record["status"], record["degraded"], record["rows_quarantined"]) == ("published", True, 6)
    assert (record["rows_scored"], record["rows_fallback"], record["rows_withheld"]) == (194, 6, 0)
    assert {(line["key"], line["rule"]) for line in toy.quarantine()} == {
        ('{"id":3}', negative),
        (f'{{"id":{DOLL}}}', negative),
        ('{"id":15}', missing),
        *((f'{{"id":{key}}}', "engine:finite") for key in (6, 9, 12)),
    }
    assert {
        i: row["score_source"] for i, row in toy.by_id().items() if row["score_source"] != "champion"
    } == {
        **dict.fromkeys((3, 6, 9, 12, 15), "rule"),
        DOLL: "default",
    }
    rows = toy.by_id()
    assert [(rows[i]["score"], rows[i]["model_version"]) for i in (BALL, DOLL)] == [
        (RULE, None),
        (DEFAULT, None),
    ]


@pytest.fixture
def ascii_source(server: EmbeddedServer) -> Iterator[str]:
    """A database that takes any bytes for text, with the week that the toy's history looks at."""
    name = f"ascii_{uuid4().hex[:12]}"
    statement = (
        f"create database {name} encoding 'SQL_ASCII' locale_provider libc locale 'C' template template0"
    )
    with psycopg.connect(server.url("registry"), autocommit=True) as connection:
        connection.execute(statement.encode())
    url = server.url(name)
    create_tables(url)
    day = NIGHT
    for _ in range(9):
        fill(url, day)
        day = day.previous()
    yield url
    server.drop_database(name)


def test_text_that_is_no_utf8_is_quarantined_and_answered_by_the_fallback(
    toy: Toy, ascii_source: str
) -> None:
    with psycopg.connect(ascii_source, autocommit=True) as connection:
        connection.execute(
            "update source.toy set note = convert_from('\\xff41'::bytea, 'SQL_ASCII') "
            "where day = %s and id = any(%s)",
            [NIGHT.day, [BALL, DOLL]],
        )
    with toy.with_settings(source_url=SecretStr(ascii_source)) as elsewhere:
        record = elsewhere.night()
    assert (record["status"], record["rows_quarantined"], record["rows_fallback"]) == ("published", 2, 2)
    assert {reason[1] for reason in reasons(toy)} == {"engine:valid_text"}
    assert origins(toy) == {"champion": 198, "rule": 1, "default": 1}


def test_a_bad_row_takes_its_score_of_yesterday_where_no_rule_answers(toy: Toy) -> None:
    toy.night(YESTERDAY)
    plant(toy, "amount = -1", DOLL)
    toy.night()
    row = toy.by_id()[DOLL]
    assert (row["score_source"], row["score_age_days"]) == ("carried_forward", 1)
    assert row["score"] == toy.by_id(YESTERDAY)[DOLL]["score"]


# What is odd, and scored all the same


def test_an_unknown_category_is_scored_and_warned_of(toy: Toy) -> None:
    plant(toy, "kind = 'yoyo'", DOLL)
    record = toy.night()
    assert (record["status"], record["degraded"], record["rows_scored"]) == ("published", False, 200)
    assert any("expect_column_values_to_be_in_set on kind: 1 rows" in text for text in record["warnings"])
    assert toy.by_id()[DOLL]["score_source"] == "champion"


def test_an_extra_column_is_left_out_and_warned_of(toy: Toy) -> None:
    toy.execute("alter table source.toy add column colour text default 'red'")
    record = toy.night()
    assert (record["status"], record["rows_scored"]) == ("published", 200)
    assert any("extra column 'colour'" in text for text in record["warnings"])


def test_a_row_with_two_faults_is_told_of_both_and_answered_once(toy: Toy) -> None:
    plant(toy, "amount = -1, kind = null", DOLL)
    record = toy.night()
    assert {reason[1] for reason in reasons(toy)} >= {
        "engine:not_null",
        "expect_column_values_to_be_between",
    }
    assert (record["rows_quarantined"], toy.by_id()[DOLL]["score_source"]) == (1, "default")


def test_a_label_that_came_after_the_cut_off_changes_nothing(toy: Toy) -> None:
    """As of: yesterday's sales were known at 20:00, those of the night itself were not."""
    before = toy.night()["snapshot_fingerprint"]
    toy.execute("update source.toy_sales set sold = not sold where day = %s", NIGHT.day)
    assert toy.night()["snapshot_fingerprint"] == before


def test_a_row_that_came_after_the_cut_off_is_not_read(toy: Toy) -> None:
    plant(toy, "known_at = (day + time '04:00') at time zone 'Europe/Berlin'", DOLL)
    assert toy.night()["rows_in"] == 199
