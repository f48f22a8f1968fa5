"""Airflow's REST API, as an account of FAB uses it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

T = TypeVar("T")

Json = dict[str, Any]


@dataclass(frozen=True)
class Api:
    """One account's session."""

    client: httpx.Client

    @classmethod
    def login(cls, url: str, username: str, password: str) -> Api:
        """Log in by POST /auth/token."""
        login = {"username": username, "password": password}
        answer = httpx.post(f"{url}/auth/token", json=login, timeout=60)
        token = answer.raise_for_status().json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        return cls(httpx.Client(base_url=f"{url}/api/v2", headers=headers, timeout=60))

    def get(self, path: str, **query: str) -> Json:
        """Read something."""
        answer: Json = self.client.get(path, params=query).raise_for_status().json()
        return answer

    def has(self, path: str) -> bool:
        """Whether something is there."""
        return self.client.get(path).status_code == httpx.codes.OK

    def post(self, path: str, body: Json) -> Json:
        """Make something."""
        answer: Json = self.client.post(path, json=body).raise_for_status().json()
        return answer

    def refused(self, path: str, body: Json) -> bool:
        """Whether this account may not make it."""
        return self.client.post(path, json=body).status_code == httpx.codes.FORBIDDEN

    def patch(self, path: str, body: Json) -> Json:
        """Change something."""
        answer: Json = self.client.patch(path, json=body).raise_for_status().json()
        return answer


def until(look: Callable[[], T | None], what: str, patience: float, every: float = 1.0) -> T:
    """Wait until a look finds something, and return it; raises TimeoutError after these seconds."""
    deadline = time.monotonic() + patience
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} must come within {patience:.0f} s; got nothing")
        time.sleep(every)
    return found
