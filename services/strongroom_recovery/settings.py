"""What the recovery worker is told."""

from pathlib import Path

from strongroom.settings import WorkerSettings


class RecoverySettings(WorkerSettings):
    """Settings of the recovery worker, beside those that both workers have.

    sealing_keys_dir: the folder with the sealing private keys (`*.key`), one for every key of the roster.
    recovery_require_user_id: refuse what was not sent under a broker account of the sender's own name.
    """

    sealing_keys_dir: Path
    recovery_require_user_id: bool = False
