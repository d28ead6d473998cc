"""Commands that run a worker in the foreground, for containers and systemd."""

import sys

import rich_click as click


@click.group()
def worker() -> None:
    """Run a worker in the foreground. Settings come from the environment; see deploy/README.md."""


@worker.command("escrow")
def escrow() -> None:
    """Run the escrow worker: it commits escrow messages and gives receipts. It holds no sealing private key.

    Example: `(set -a; . escrow.env; strongroom worker escrow)`
    """
    from strongroom_escrow.__main__ import main

    sys.exit(main())


@worker.command("recovery")
def recovery() -> None:
    """Run the recovery worker: it decides enrolments and gives keys back. It holds the sealing private keys.

    Example: `(set -a; . recovery.env; strongroom worker recovery)`
    """
    from strongroom_recovery.__main__ import main

    sys.exit(main())


@worker.command("prover")
def prover() -> None:
    """Run the prover: it opens every key again and again, and logs which of them can be given back.

    It holds the sealing private keys, and shares keys and state folder with the recovery worker.

    Example: `(set -a; . prover.env; strongroom worker prover)`
    """
    from strongroom_recovery.prover.__main__ import main

    sys.exit(main())
