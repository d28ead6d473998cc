"""What the recovery worker and the prover are told."""

from pathlib import Path

from strongroom.settings import QueueWorkerSettings, WorkerSettings


class RecoverySettings(QueueWorkerSettings):
    """Settings of the recovery worker, beside those that all workers of a queue have.

    sealing_keys_dir: the folder with the sealing private keys (`*.key`), one for every key of the roster.
    recovery_require_user_id: refuse what was not sent under a broker account of the sender's own name.
    """

    sealing_keys_dir: Path
    recovery_require_user_id: bool = False


class ProverSettings(WorkerSettings):
    """Settings of the prover, beside those that all workers have; its state folder is the recovery worker's.

    sealing_keys_dir: as the recovery worker's. metrics_file: rewritten every minute, for Prometheus.
    """

    sealing_keys_dir: Path
    metrics_file: Path | None = None
