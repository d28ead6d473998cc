"""What the recovery worker is told."""

from pathlib import Path

from strongroom.settings import WorkerSettings


class RecoverySettings(WorkerSettings):
    """Settings of the recovery worker, beside those that both workers have.

    sealing_keys_dir: the folder with the sealing private keys (`*.key`), one for every key of the roster.
    """

    sealing_keys_dir: Path
