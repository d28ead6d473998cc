"""Settings of the server processes: read once from the environment, frozen, every key with its meaning.

Names carry the prefix `STRONGROOM_`, e.g. `STRONGROOM_ROSTER_FILE`. A URL that holds a password may be
given by file instead (`STRONGROOM_DATABASE_URL_FILE`), as containers and systemd credentials want it.
"""

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from strongroom.crypto.signing import PUBLIC_KEY_BYTES
from strongroom.errors import ConfigurationInvalid, MalformedStatement, PermanentError, RosterInvalid
from strongroom.statements import Statement, decode_base64, parse_envelope

PREFIX: Final = "STRONGROOM_"

_OF_WORKERS: Final = (f"{PREFIX}ESCROW_", f"{PREFIX}RECOVERY_")
# What the script of the database's roles reads (deploy/postgres/roles.sql).
_NO_SETTINGS: Final = frozenset({f"{PREFIX}ESCROW_PASSWORD", f"{PREFIX}RECOVERY_PASSWORD"})


class EnvironmentSettings(BaseSettings):
    """Base of every settings model: frozen, and its errors never show a value."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True, env_ignore_empty=True
    )

    @classmethod
    def load(cls) -> Self:
        """Read the settings from the environment; raises ConfigurationInvalid naming the variable at fault."""
        try:
            return cls()
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            raise ConfigurationInvalid(message)
        name = PREFIX + "_".join(str(part) for part in first["loc"]).upper()
        raise ConfigurationInvalid(f"{name}: {message}", hint=f"set {name} in the environment")

    @model_validator(mode="before")
    @classmethod
    def _secrets_from_files(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name in cls.model_fields:
            path = values.get(f"{name}_file") if f"{name}_file" in cls.model_fields else None
            if path and not values.get(name):
                try:
                    values[name] = SecretStr(Path(path).read_text().strip())
                except OSError as error:
                    raise ValueError(f"{PREFIX}{name.upper()}_FILE: {error.strerror}: {path}") from None
                except UnicodeDecodeError:
                    raise ValueError(f"{PREFIX}{name.upper()}_FILE: is no text: {path}") from None
        return values


class WorkerSettings(EnvironmentSettings):
    """What every worker is told; each adds its own keys to this.

    database_url: PostgreSQL URL of the worker's own role.
    root_key_file: the pinned root public key, base64.
    roster_file: the first roster; the recovery log may name newer ones.
    log_key_file: a Strongroom key file. passphrase_file: opens it, and other key files, when they are encrypted.
    state_dir: where the newest checkpoints are kept; it must outlive the process and the database.
    health_file: rewritten after every round; a container's health check looks at its age.
    """

    database_url: SecretStr
    database_url_file: Path | None = None
    root_key_file: Path
    roster_file: Path
    log_key_file: Path
    passphrase_file: Path | None = None
    state_dir: Path
    health_file: Path | None = None
    log_format: Literal["auto", "json", "console"] = "auto"

    @classmethod
    def load(cls) -> Self:
        """Read the settings from the environment.

        Raises ConfigurationInvalid naming the variable at fault; also one whose name is a worker's and that is no
        setting of this one: it would do nothing, silently.
        """
        known = {f"{PREFIX}{field}".upper() for field in cls.model_fields}
        for name in sorted(os.environ):
            if name.upper().startswith(_OF_WORKERS) and name.upper() not in known | _NO_SETTINGS:
                nearest = get_close_matches(name.upper(), known, n=1, cutoff=0.0)
                raise ConfigurationInvalid(
                    f"{name}: is no setting of this worker", hint=f"the nearest one is {nearest[0]}; or unset it"
                )
        return super().load()


class QueueWorkerSettings(WorkerSettings):
    """What a worker is told that takes messages from a queue.

    broker_url: AMQP URL of the worker's own user. broker_ca_file: the CA that signed the broker's certificate
    (PEM); system CAs when absent. reply_key_file: a Strongroom key file.
    """

    broker_url: SecretStr
    broker_url_file: Path | None = None
    broker_ca_file: Path | None = None
    reply_key_file: Path


def read_root_key(path: Path) -> bytes:
    """Read a pinned root public key: one line of base64, 32 bytes. Raises ConfigurationInvalid."""
    try:
        key = decode_base64(path.read_text().strip(), "root key")
    except OSError as error:
        raise ConfigurationInvalid(f"root key: {error.strerror}: {path}") from None
    except UnicodeDecodeError:
        raise ConfigurationInvalid(f"root key: is no text: {path}") from None
    except MalformedStatement as error:
        raise ConfigurationInvalid(f"{error.message}: {path}") from None
    if len(key) != PUBLIC_KEY_BYTES:
        raise ConfigurationInvalid(f"root key: {len(key)} bytes, must be {PUBLIC_KEY_BYTES}: {path}")
    return key


def read_roster(path: Path) -> Statement:
    """Read a roster file (one DSSE envelope); nothing in it is verified yet. Raises RosterInvalid."""
    try:
        return parse_envelope(path.read_bytes())
    except OSError as error:
        raise RosterInvalid(f"roster: {error.strerror}: {path}") from None
    except PermanentError as error:
        raise RosterInvalid(f"roster: {error.message}: {path}") from None
