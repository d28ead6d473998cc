"""`python -m strongroom_escrow`: the escrow worker as a process; `strongroom worker escrow` is the same."""

import sys

from strongroom import logs, service
from strongroom.errors import ConfigurationInvalid
from strongroom_escrow import wiring
from strongroom_escrow.settings import EscrowSettings


def main() -> int:
    """Run the escrow worker with settings from the environment; return the exit code."""
    try:
        settings = EscrowSettings.load()
    except ConfigurationInvalid as error:
        sys.stderr.write(f"strongroom escrow worker: {error.message}\n  {error.hint}\n")
        return error.exit_code
    logs.configure(settings.log_format, service="escrow")
    return service.run(lambda stop: wiring.serve(settings, stop))


if __name__ == "__main__":
    sys.exit(main())
