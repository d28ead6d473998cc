"""Entry point of the `strongroom` command."""

from strongroom.hardening import harden_process
from strongroom_cli.app import cli


def main() -> None:
    """Run the command; core files and debuggers are shut out before any key is read."""
    harden_process()
    cli(prog_name="strongroom")


if __name__ == "__main__":
    main()
