"""A browser over a local Airflow, and the pictures it leaves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright
from support.local_airflow import Local


@contextmanager
def logged_in(local: Local) -> Iterator[Page]:
    """A page of a browser that is logged in as the admin."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(local.url)
        page.fill("input[name=username]", "admin")
        page.fill("input[name=password]", local.passwords["admin"])
        page.keyboard.press("Enter")
        page.wait_for_url(f"{local.url}/")
        yield page
        browser.close()


def picture(page: Page, name: str) -> None:
    """Keep a screenshot where CI collects them, outside the repository."""
    folder = os.environ.get("CI_ARTIFACTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def choose(page: Page, option: str) -> None:
    """Click Approve or Reject on the page of a training's question, and see it arrive."""
    with page.expect_response(lambda got: "hitlDetails" in got.url and got.request.method == "PATCH") as got:
        page.get_by_test_id(f"hitl-option-{option}").click()
    assert got.value.ok, got.value.text()
