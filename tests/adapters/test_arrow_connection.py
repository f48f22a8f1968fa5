"""Connections for bulk data take the URL that SQLAlchemy takes."""

from __future__ import annotations

from pipeline.adapters.arrow_connection import plain_url


def test_any_driver_name_in_the_url_is_left_out() -> None:
    assert plain_url("postgresql+psycopg://u@h/d") == plain_url("postgresql://u@h/d") == "postgresql://u@h/d"
