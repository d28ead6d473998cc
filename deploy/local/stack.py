"""Both servers of one folder: `python -m deploy.local.stack up|down|status DIR`.

Exit codes: 0 done, or both running; 1 failed; 2 usage; 3 (`status`) not all of it is running.
"""

import argparse
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deploy.local.given import GivenPostgres, GivenRabbit, given_broker, given_database
from deploy.local.place import Place
from deploy.local.postgres import PrivatePostgres
from deploy.local.rabbitmq import PrivateRabbit
from deploy.local.server import StackError

NOT_RUNNING = 3


class Stack:
    """A PostgreSQL and a RabbitMQ for one folder: private ones, or those that the environment gives by URL."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        """Choose the servers; raises StackError when the environment gives half a server."""
        self.place = Place(folder)
        self.database: PrivatePostgres | GivenPostgres
        self.broker: PrivateRabbit | GivenRabbit
        self.database = given_database(folder, environment) or PrivatePostgres(folder)
        self.broker = given_broker(folder, environment) or PrivateRabbit(folder)

    def up(self) -> None:
        """Start both at once and return when both take connections; raises StackError."""
        self.place.create()
        with ThreadPoolExecutor(max_workers=2) as pool:
            for started in [pool.submit(server.start) for server in (self.database, self.broker)]:
                started.result()

    def down(self, *, purge: bool = False) -> None:
        """Stop what `up` started; `purge` deletes all data and passwords of this folder too."""
        if not self.place.root.exists():
            return
        with ThreadPoolExecutor(max_workers=2) as pool:
            for stopped in [pool.submit(server.stop) for server in (self.database, self.broker)]:
                stopped.result()
        if purge:
            self.place.remove()

    def status(self) -> dict[str, str]:
        """Return for each server `running` with pid and port, `given`, or `stopped`."""
        words: dict[str, str] = {}
        for server in (self.database, self.broker):
            if isinstance(server, GivenPostgres | GivenRabbit):
                words[server.name] = "given"
            elif (running := server.running()) is None:
                words[server.name] = "stopped"
            else:
                words[server.name] = f"running, pid {running.pid}, port {server.port}"
        return words


def main() -> int:
    """Run one command; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local.stack", description=__doc__)
    parser.add_argument("command", choices=("up", "down", "status"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--purge", action="store_true", help="with down: delete all data and passwords too")
    arguments = parser.parse_args()
    if arguments.purge and arguments.command != "down":
        parser.error("--purge belongs to down")
    try:
        stack = Stack(arguments.folder, os.environ)
        if arguments.command == "up":
            stack.up()
        elif arguments.command == "down":
            stack.down(purge=arguments.purge)
        status = stack.status()
    except StackError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for name, words in status.items():
        print(f"{name}: {words}")
    return NOT_RUNNING if arguments.command == "status" and "stopped" in status.values() else 0


if __name__ == "__main__":
    sys.exit(main())
