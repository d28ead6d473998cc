"""Whoever owns the database server: may change any row, and knows none of the keys."""

from typing import Any, Protocol

import asyncpg


class Owned(Protocol):
    """A database whose administrator's URL is known."""

    @property
    def superuser_url(self) -> str:
        """`postgresql://` URL of a superuser, connected to that database."""


async def as_superuser(database: Owned, *commands: str) -> None:
    """Run SQL commands as the administrator, each on its own."""
    connection = await asyncpg.connect(database.superuser_url)
    try:
        for command in commands:
            await connection.execute(command)
    finally:
        await connection.close()


async def ask_superuser(database: Owned, query: str, *args: object) -> Any:
    """Return the first value that a query of the administrator gives."""
    connection = await asyncpg.connect(database.superuser_url)
    try:
        return await connection.fetchval(query, *args)
    finally:
        await connection.close()
