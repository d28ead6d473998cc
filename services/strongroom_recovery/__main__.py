"""`python -m strongroom_recovery`: the recovery worker as a process; `strongroom worker recovery` is the same."""

import sys

from strongroom import logs, service
from strongroom.errors import ConfigurationInvalid
from strongroom_recovery import wiring
from strongroom_recovery.settings import RecoverySettings


def main() -> int:
    """Run the recovery worker with settings from the environment; return the exit code."""
    try:
        settings = RecoverySettings.load()
    except ConfigurationInvalid as error:
        sys.stderr.write(f"strongroom recovery worker: {error.message}\n  {error.hint}\n")
        return error.exit_code
    logs.configure(settings.log_format, service="recovery")
    return service.run(lambda stop: wiring.serve(settings, stop))


if __name__ == "__main__":
    sys.exit(main())
