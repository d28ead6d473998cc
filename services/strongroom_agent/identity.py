"""The keys of a home: making a home around a new key pair, and reading the keys back."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from pyrage import x25519

from strongroom.crypto.key_file import read_signing_key, write_signing_key
from strongroom.crypto.secret import Secret
from strongroom.crypto.signing import SigningKey
from strongroom.errors import ConfigurationInvalid, KeyFileInvalid, OfficerUnknown, RosterInvalid, UsageError
from strongroom.fields import Part, Principal
from strongroom.mandates import Officer, Role
from strongroom.private_file import sweep, sync_folder
from strongroom.roster import Roster
from strongroom.statements import parse_envelope
from strongroom_agent import age
from strongroom_agent.home import (
    BROKER_CERTIFICATE,
    Config,
    Home,
    check_private,
    lock_folder,
    os_error,
    write_atomically,
)
from strongroom_agent.home import Role as HomeRole
from strongroom_agent.state import State
from strongroom_agent.trust import Trust, keep_roster

# The configuration is written into this file, which is then renamed: until then it marks an unfinished home.
_MARKER: Final = "config.toml.partial"
_ONE_TIME_KEY: Final = "one-time.key"
_PEM_FILES: Final = ("broker-ca.pem", BROKER_CERTIFICATE)
_OURS: Final = frozenset({_MARKER, "lock", "keys", *_PEM_FILES, *(f"{name}.partial" for name in _PEM_FILES)})


def found_home(
    path: Path,
    *,
    passphrase: Secret | None,
    with_age_key: bool,
    broker_ca: str | None,
    prepare: Callable[[SigningKey, State], Config],
) -> Home:
    """Make a home: keys, database, the broker's CA (PEM), and last of all the configuration.

    `prepare` is given the new signing key and the new database; what it writes and the configuration it returns
    are on disk when this returns. A home whose making was cut short is begun anew: nothing can have been sent
    from it. Raises Busy, and ConfigurationInvalid for a folder that holds anything else or is not private.
    """
    make_folder(path)
    with lock_folder(path):
        if (path / "config.toml").exists():
            raise ConfigurationInvalid(f"{path}: is a Strongroom home already", hint="name another folder")
        try:
            _sweep(path, check_folder(path, for_host=with_age_key))
            (path / _MARKER).touch(mode=0o600)
            sync_folder(path)
            (path / "keys").mkdir(mode=0o700)
            if with_age_key:
                age.write_identity(path / "keys" / "age.key", x25519.Identity.generate())
            sync_folder(path.parent)
        except OSError as error:
            raise os_error(path, error) from None
        key = SigningKey.generate()
        write_signing_key(path / "keys" / "signing.key", key, passphrase)
        with State.create(path / "state.db") as state:
            config = prepare(key, state)
        if broker_ca is not None:
            write_atomically(path / "broker-ca.pem", broker_ca.encode())
        return Home(path, config).write_config(config)


def make_folder(path: Path) -> None:
    """Make the folder of a home, with those above it, unless it is there.

    Raises ConfigurationInvalid when others may use it or it cannot be made, TransientError for a full disk.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_private(path)
    except OSError as error:
        raise os_error(path, error) from None


def one_time_key_file(path: Path) -> Path:
    """Return where the home folder at `path` keeps the one-time key that it made for its enrolment card."""
    return path / _ONE_TIME_KEY


def check_folder(path: Path, *, for_host: bool) -> set[str]:
    """Return the names of what an unfinished making left in a folder; refuse one that holds anything else.

    The one-time key of a host's card may be there and is none of them. Raises ConfigurationInvalid.
    """
    kept = {"lock", _ONE_TIME_KEY} if for_host else {"lock"}
    sweep(one_time_key_file(path))
    found = {entry.name for entry in path.iterdir()} - kept
    unfinished = _MARKER in found
    strange = {name for name in found if name not in _OURS and not name.startswith("state.db")}
    if strange or (found and not unfinished):
        raise ConfigurationInvalid(
            f"{path}: is not empty, and is no Strongroom home",
            hint="name an empty folder; if config.toml was lost from a home, restore it from its backup",
        )
    return found - {_MARKER}


def _sweep(path: Path, leftovers: set[str]) -> None:
    for name in sorted(leftovers):
        entry = path / name
        if entry.is_dir():
            for file in entry.iterdir():
                file.unlink()
            entry.rmdir()
        else:
            entry.unlink()


class _Named(Part):
    name: Principal


def check_name(what: str, name: str) -> None:
    """Raise UsageError unless a name can be that of a principal or an officer; `what` says whose it would be."""
    try:
        _Named.model_validate({"name": name})
    except ValueError:
        raise UsageError(f"{what}: {name!r} must be 3 to 64 of a-z, 0-9 and -") from None


def create_officer_home(path: Path, name: str, *, passphrase: Secret | None) -> Home:
    """Make an officer's home with a new key pair and nothing else; `config.public_key` goes into the roster.

    Raises as `found_home`, and UsageError for a name that is no officer's name.
    """
    check_name("officer", name)

    def prepare(key: SigningKey, _state: State) -> Config:
        return Config(name=name, role=HomeRole.OFFICER, key_id=key.key_id, public_key=key.public_key)

    return found_home(path, passphrase=passphrase, with_age_key=False, broker_ca=None, prepare=prepare)


def attach(
    home: Home,
    *,
    root_key: bytes,
    roster: bytes,
    broker_url: str | None,
    broker_ca: str | None,
    now: int,
    agents_broker_url: str | None = None,
) -> Home:
    """Give an officer's home its authority: root key to pin, roster (envelope), broker; return it as it is now.

    May be repeated, with a newer roster or another broker; a broker value of None leaves the old one. What is
    pinned goes from one root key to one that follows it, by changes that both have signed, and never else.
    Raises RosterInvalid, Expired, OfficerUnknown when the roster does not name this home's key under its name,
    ConfigurationInvalid, Busy.
    """
    statement = parse_envelope(roster)
    verified = Roster.verified(statement, root_key)
    pinned = home.config.root_key or root_key
    if pinned not in verified.root_keys:
        raise RosterInvalid("root_key: another one is pinned in this home, and no change leads on from that")
    if not any(
        (o.name, o.public_key) == (home.config.name, home.config.public_key) for o in verified.body.officers
    ):
        raise OfficerUnknown(
            f"officer {home.config.name}: the roster does not name this home's key {home.config.key_id}"
        )
    with home.lock(), State.open(home.state_file) as state:
        if home.config.root_key is None:
            verified.check_current(now)
            keep_roster(state, verified, now)
        else:
            Trust.of(home, state).adopt(statement, now)
        if broker_ca is not None:
            write_atomically(home.path / "broker-ca.pem", broker_ca.encode())
        return home.write_config(
            replace(
                home.config,
                authority=verified.body.authority,
                root_key=max(pinned, root_key, key=verified.root_keys.index),
                broker_url=broker_url or home.config.broker_url,
                agents_broker_url=agents_broker_url or home.config.agents_broker_url,
            )
        )


def signing_key(home: Home, passphrase: Secret | None) -> SigningKey:
    """Read the signing key of a home; KeyFileInvalid if it cannot be read or is not the home's own."""
    try:
        check_private(home.keys)
    except OSError as error:
        raise os_error(home.keys, error) from None
    key = read_signing_key(home.signing_key_file, passphrase)
    if key.public_key != home.config.public_key:
        raise KeyFileInvalid(f"{home.signing_key_file}: is not the key {home.config.key_id} of this home")
    return key


def check_officers_home(home: Home) -> None:
    """Raise OfficerUnknown for a home that is a host's."""
    if home.config.role is not HomeRole.OFFICER:
        raise OfficerUnknown(
            f"{home.path}: this home is a host's, not an officer's", hint="name an officer's with --home"
        )


def check_officer(home: Home, roster: Roster, role: Role | None = None) -> Officer:
    """Return the roster's entry for a home's owner; OfficerUnknown without entry, key or the role asked for.

    Also for a host's home.
    """
    check_officers_home(home)
    officer = roster.officer(home.config.name, role)
    if officer.public_key != home.config.public_key:
        raise OfficerUnknown(f"officer {officer.name}: the roster names another key than this home's")
    return officer
