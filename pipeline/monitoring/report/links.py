"""Where the other pages are: files beside each other, or the URLs of whoever shows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Links:
    """Hrefs as a page may use them; None where there is no such page, then its name is plain text."""

    jobs: str | None
    job: Callable[[str], str | None]
    """Of a job's name."""
    dictionary: Callable[[str], str | None]
    """Of a job's name."""
    run: Callable[[str, str, str], str | None]
    """Of a job's name, a run's id and its day, YYYY-MM-DD."""
    verdict: Callable[[str, int], str | None] = lambda *_: None
    """Of a job's name and a verdict's number."""


NO_LINKS = Links(jobs=None, job=lambda _: None, dictionary=lambda _: None, run=lambda *_: None)
"""For a page that stands alone."""
