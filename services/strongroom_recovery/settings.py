"""What the recovery worker and the prover are told."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from strongroom.settings import EnvironmentSettings, QueueWorkerSettings, WorkerSettings


class KeyringSettings(EnvironmentSettings):
    """Where the sealing private keys are, one for every key of the roster: in files, on a token, or both.

    sealing_keys_dir: a folder of key files (`*.key`). keyring: a PKCS #11 URI. keyring_pin_file: the token's PIN is
    its first line, where the URI has no pin-source.
    """

    sealing_keys_dir: Path | None = None
    keyring: Annotated[str | None, Field(validate_default=True)] = None
    keyring_pin_file: Path | None = None

    @field_validator("keyring")
    @classmethod
    def _some_keys(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("sealing_keys_dir") is None:
            raise ValueError("is missing, and so is STRONGROOM_SEALING_KEYS_DIR: there are no sealing keys")
        return value


class RecoverySettings(QueueWorkerSettings, KeyringSettings):
    """Settings of the recovery worker, beside those that all workers of a queue have, and its keyring.

    recovery_require_user_id: refuse what was not sent under a broker account of the sender's own name.
    """

    recovery_require_user_id: bool = False


class ProverSettings(WorkerSettings, KeyringSettings):
    """Settings of the prover, beside those of all workers; keyring and state folder are the recovery worker's.

    metrics_file: rewritten every minute, for Prometheus.
    """

    metrics_file: Path | None = None
