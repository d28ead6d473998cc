"""Requests that wait for approval, kept in the home with their one-time keys until the keys asked for are here.

    requests/<id>.json   the signed request, as it is sent
    requests/<id>.key    its one-time private key (strongroom-key/v1), under the home's passphrase if it has one

The key is written first and removed last, so that a request in the folder can always be taken up again.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from strongroom.crypto.key_file import read_sealing_key, write_sealing_key
from strongroom.crypto.sealing import PrivateSealingKey
from strongroom.crypto.secret import Secret
from strongroom.errors import PermanentError, StateCorrupt
from strongroom.fields import parse_body
from strongroom.limits import ENVELOPE_BYTES_MAX
from strongroom.messages import Request
from strongroom.private_file import sync_folder
from strongroom.statements import Statement, parse_envelope
from strongroom_agent.home import Home, check_private, os_error, write_atomically

_REQUEST: Final = ".json"
_KEY: Final = ".key"
_HINT: Final = "restore the file from the home's backup, or move it away"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which keys are asked for: whose, and either the newest of a name or records by their ids.

    unwrap: whether what other programs wrapped is to be opened (SPEC 5.17), which is another request: an answer to
    one without it never holds what is inside.
    """

    principal: str
    name: str | None
    records: Sequence[str] | None
    unwrap: bool = False

    def is_of(self, request: Request) -> bool:
        """Say whether a request asks for exactly this, in whatever order; none that moves keys elsewhere does."""
        return request.destination is None and (self.principal, self.name, _sorted(self.records), self.unwrap) == (
            request.principal,
            request.name,
            _sorted(request.records),
            request.unwrap,
        )


def _sorted(records: Sequence[str] | None) -> list[str] | None:
    return None if records is None else sorted(records)


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request as it is sent, and the private key that its answer is sealed to."""

    request: Request
    statement: Statement
    one_time_key: PrivateSealingKey


def read_own(path: Path, home: Home, *, hint: str) -> tuple[Statement, Request]:
    """Read a request that the owner of a home has signed and kept under its id.

    Raises StateCorrupt, with this `hint`, for a file that is damaged, another's or of another id, and what
    `home.os_error` makes of one that cannot be read.
    """
    try:
        with path.open("rb") as stream:
            statement = parse_envelope(stream.read(ENVELOPE_BYTES_MAX + 1))
        request = parse_body(statement, Request)
        statement.verify_signature(home.config.public_key, home.config.key_id)
    except OSError as error:
        raise os_error(path, error) from None
    except PermanentError as error:
        raise StateCorrupt(f"{path}: {error.message}", hint=hint) from None
    if (request.id, request.requester) != (path.stem, home.config.name):
        raise StateCorrupt(f"{path}: is another request than its name says", hint=hint)
    return statement, request


class KeptRequests:
    """The requests kept in a home. Call its methods, `discard` excepted, while the home's lock is held."""

    def __init__(self, home: Home, passphrase: Secret | None) -> None:
        """Keep them in this home; `passphrase` protects the one-time keys."""
        self._home = home
        self._passphrase = passphrase
        self._folder = home.path / "requests"

    def keep(self, signed: SignedRequest) -> None:
        """Write a request and its key down; both are on disk when this returns.

        Raises ConfigurationInvalid, KeyFileInvalid or TransientError when that cannot be done.
        """
        try:
            if not self._folder.exists():
                self._folder.mkdir(mode=0o700)
                sync_folder(self._home.path)
            check_private(self._folder)
        except OSError as error:
            raise os_error(self._folder, error) from None
        write_sealing_key(self._path(signed.request.id, _KEY), signed.one_time_key, self._passphrase)
        write_atomically(self._path(signed.request.id, _REQUEST), signed.statement.envelope())

    def find(self, selection: Selection) -> SignedRequest | None:
        """Return the newest request that asks for this, or None.

        Raises KeyFileInvalid when its key cannot be read, StateCorrupt when there is none but a damaged file, which
        may be it.
        """
        for statement, request in self._all():
            if selection.is_of(request):
                key = read_sealing_key(self._path(request.id, _KEY), self._passphrase)
                if (key.suite, key.public_key) != (request.recipient_suite, request.recipient_key):
                    raise self._corrupt(self._path(request.id, _KEY), "is not the one-time key of its request")
                return SignedRequest(request, statement, key)
        for path in self._requests():
            self._read(path)
        return None

    def sweep(self, now: int) -> None:
        """Remove what is past its expiry at `now` (seconds), and what a crash left of a request half written.

        A file that cannot be read stays, for somebody to look at; it hinders no other request.
        """
        for _, request in self._all():
            if request.expires_at < now:
                self.discard(request.id)
        whole = {path.stem for path in self._requests()}
        try:
            for path in self._listed():
                if path.stem not in whole:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise os_error(self._folder, error) from None

    def discard_others(self, selection: Selection, request_id: str) -> None:
        """Remove the requests that ask for the same as the one with this id."""
        for _, request in self._all():
            if selection.is_of(request) and request.id != request_id:
                self.discard(request.id)

    def discard(self, request_id: str) -> None:
        """Remove a request and its key for good; harmless when they are gone."""
        try:
            self._path(request_id, _REQUEST).unlink(missing_ok=True)
            self._path(request_id, _KEY).unlink(missing_ok=True)
            if self._folder.exists():
                sync_folder(self._folder)
        except OSError as error:
            raise os_error(self._folder, error) from None

    def _all(self) -> Iterator[tuple[Statement, Request]]:
        """Give every request that can be read, the newest first: ids rise with time."""
        for path in self._requests():
            with suppress(StateCorrupt):
                yield self._read(path)

    def _requests(self) -> list[Path]:
        return sorted((path for path in self._listed() if path.suffix == _REQUEST), reverse=True)

    def _read(self, path: Path) -> tuple[Statement, Request]:
        return read_own(path, self._home, hint=_HINT)

    def _listed(self) -> list[Path]:
        try:
            if not self._folder.exists():
                return []
            check_private(self._folder)
            return list(self._folder.iterdir())
        except OSError as error:
            raise os_error(self._folder, error) from None

    def _path(self, request_id: str, suffix: str) -> Path:
        return self._folder / f"{request_id}{suffix}"

    def _corrupt(self, path: Path, why: str) -> StateCorrupt:
        return StateCorrupt(f"{path}: {why}", hint=_HINT)
