"""What whole nights need: the toy project."""

from __future__ import annotations

from support.toy import toy, toy_template

__all__ = ["toy", "toy_template"]
