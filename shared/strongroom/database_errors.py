"""From the driver's exceptions to ours, without any value that was or is in the database. Pure."""

import re
from typing import Final, NamedTuple

import asyncpg

from strongroom.errors import Busy, DatabaseUnavailable, SchemaMismatch, StateCorrupt, StrongroomError
from strongroom.schema import MIGRATE_HINT

_LATER: Final = "it is tried again; see the PostgreSQL server's log"
_CHECK: Final = "run `strongroom db check`"
_ROLES: Final = "see deploy/postgres/roles.sql"


class _Meaning(NamedTuple):
    error: type[StrongroomError]
    sentence: str  # {said}: the server's own, which in classes 26, 3F and 42 names objects and never values
    hint: str


# By SQLSTATE or its class (PostgreSQL documentation, appendix A); a whole state goes before its class.
_MEANINGS: Final = {
    "08": _Meaning(DatabaseUnavailable, "the connection failed", _LATER),
    "0A": _Meaning(DatabaseUnavailable, "it cannot do this now (is it a standby?)", _LATER),
    "22": _Meaning(StateCorrupt, "a value does not fit its column", _CHECK),
    "23": _Meaning(StateCorrupt, "a row contradicts what is stored", _CHECK),
    "25006": _Meaning(DatabaseUnavailable, "it does not take writes (is it a standby?)", _LATER),
    "25P03": _Meaning(DatabaseUnavailable, "the transaction was idle for too long", _LATER),
    "26": _Meaning(SchemaMismatch, "{said}", MIGRATE_HINT),
    "28": _Meaning(DatabaseUnavailable, "it refuses the role or its password", _ROLES),
    "3D": _Meaning(DatabaseUnavailable, "the server has no database of this name", _ROLES),
    "3F": _Meaning(SchemaMismatch, "{said}", MIGRATE_HINT),
    "40": _Meaning(DatabaseUnavailable, "it rolled the transaction back in favour of another", _LATER),
    "42": _Meaning(SchemaMismatch, "{said}", MIGRATE_HINT),
    "42501": _Meaning(SchemaMismatch, "{said}", _CHECK),
    "53": _Meaning(DatabaseUnavailable, "it is out of resources", _LATER),
    "55P03": _Meaning(Busy, "a lock is held by somebody else", _LATER),
    "57": _Meaning(DatabaseUnavailable, "it is shutting down, starting, or was told to stop the query", _LATER),
    "58": _Meaning(DatabaseUnavailable, "its operating system fails", _LATER),
}
_CLOSED: Final = re.compile("is clos|has been released")
_OTHERWISE: Final = _Meaning(StateCorrupt, "the query failed", _CHECK)


def translated(error: Exception) -> StrongroomError:
    """Return what an exception out of the driver means to a caller.

    DatabaseUnavailable or Busy: nothing of the transaction is stored, and the same may succeed later. A
    FatalError otherwise: database and program do not fit each other. Our own errors come back as they are.
    Not for COMMIT, whose failure has more to it (`is_rollback`).
    """
    if isinstance(error, StrongroomError):
        return error
    kind = type(error).__name__
    if isinstance(error, asyncpg.PostgresError):
        result = _translated_answer(error)
    elif isinstance(error, TimeoutError):
        result = DatabaseUnavailable("database: no answer in time", hint=_LATER)
    elif isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError):
        what = f"a file or socket that its URL names is missing or closed to this process ({kind})"
        result = DatabaseUnavailable(f"database: {what}", hint="check the URL, and the files that it names")
    elif isinstance(error, OSError):
        result = DatabaseUnavailable(f"database: it cannot be reached ({kind})", hint=_LATER)
    elif isinstance(error, ValueError):  # the driver cannot encode a parameter; its text quotes the value
        result = StateCorrupt("database: a value does not fit its column", hint=_CHECK)
    elif isinstance(error, asyncpg.InternalClientError) or _CLOSED.search(str(error)):
        # No host is a primary; or the connection, or the pool, is closed or closing.
        result = DatabaseUnavailable(f"database: the connection cannot be used ({kind})", hint=_LATER)
    else:
        result = StateCorrupt(f"database: the driver was used wrongly ({kind})")
    return result


def is_rollback(error: asyncpg.PostgresError) -> bool:
    """Say whether an error in answer to COMMIT means for certain that nothing was stored."""
    # Class 23: a deferred constraint; 40: rolled back, except 40003, which says that nobody knows.
    return error.sqlstate[:2] in {"23", "40"} and error.sqlstate != "40003"


def _translated_answer(error: asyncpg.PostgresError) -> StrongroomError:
    state = getattr(error, "sqlstate", None) or "XX000"
    meaning = _MEANINGS.get(state) or _MEANINGS.get(state[:2]) or _OTHERWISE
    place = ".".join(name for name in (error.table_name, error.column_name or error.constraint_name) if name)
    sentence = meaning.sentence.format(said=error.args[0])
    return meaning.error(
        f"database: {sentence} (SQLSTATE {state}{', ' if place else ''}{place})", hint=meaning.hint
    )
