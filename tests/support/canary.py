"""Looking for a secret where none may be: in files, in a database, in what a program said."""

import base64
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import asyncpg

_TABLES = """
    SELECT format('%I.%I', table_schema, table_name) AS name FROM information_schema.tables
    WHERE table_schema NOT IN ('pg_catalog', 'information_schema') AND table_type = 'BASE TABLE'
"""


def forms_of(secret: bytes) -> list[bytes]:
    """Return the ways in which a secret may stand somewhere: raw, hex, base64 at each of its three offsets."""
    forms = [secret, secret.hex().encode(), secret.hex().upper().encode()]
    for offset in range(3):
        # The first and the last group of characters depend on the neighbours: they are left out.
        encoded = base64.b64encode(bytes(offset) + secret)[4 if offset else 0 : -4]
        forms += [encoded, encoded.translate(bytes.maketrans(b"+/", b"-_"))]
    return list(dict.fromkeys(forms))


def shows(content: bytes, secret: bytes) -> bool:
    """Tell whether a secret stands in some bytes in any of its forms."""
    return any(form in content for form in forms_of(secret))


def files_that_show(secrets: Mapping[str, bytes], *places: Path) -> list[str]:
    """Return `name of the secret: path` for every file below these places whose name or content shows one."""
    forms = {name: forms_of(secret) for name, secret in secrets.items()}
    found = []
    for place in places:
        for folder, _, names in os.walk(place):
            for path in (Path(folder) / name for name in names):
                with suppress(FileNotFoundError):  # a server may clean up meanwhile
                    if path.is_file() and not path.is_symlink():
                        content = os.fsencode(path.name) + b"\0" + path.read_bytes()
                        found += [
                            f"{name}: {path}"
                            for name, each in forms.items()
                            if any(form in content for form in each)
                        ]
    return found


async def tables_that_show(secrets: Mapping[str, bytes], superuser_url: str) -> tuple[int, list[str]]:
    """Look through every value of every table; return their number, and `secret: column` for each hit."""
    values, found = 0, []
    connection = await asyncpg.connect(superuser_url)
    try:
        for table in await connection.fetch(_TABLES):
            for row in await connection.fetch(f"SELECT * FROM {table['name']}"):  # noqa: S608 - from the catalogue
                for column, value in row.items():
                    values += 1
                    content = value if isinstance(value, bytes) else str(value).encode()
                    found += [
                        f"{name}: {table['name']}.{column}"
                        for name, secret in secrets.items()
                        if shows(content, secret)
                    ]
    finally:
        await connection.close()
    return values, found
