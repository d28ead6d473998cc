"""Commands for files that a lost key shall not lose: seal, open."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

import rich_click as click
from click.core import ParameterSource

from strongroom.crypto.secret import Secret
from strongroom.errors import UsageError
from strongroom_cli.delivery import nothing_spooled_is_no_75, show_delivery, until_options
from strongroom_cli.file_progress import reading
from strongroom_cli.options import EXISTING_FILE, home_option, output_option, passphrase_option
from strongroom_cli.output import Output, run

STANDARD: Final = Path("-")

_FILE_OR_STANDARD_INPUT: Final = click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
_PASSPHRASE_FROM: Final = click.option(
    "--passphrase-from",
    type=EXISTING_FILE,
    help="File whose first line is the passphrase of FILE, instead of asking.",
)


@click.command()
@click.argument("file", type=_FILE_OR_STANDARD_INPUT)
@click.option("--output-file", type=click.Path(path_type=Path), help="Default: FILE.age")
@click.option("--force", is_flag=True, help="Overwrite the output file.")
@click.option(
    "--passphrase",
    "to_passphrase",
    is_flag=True,
    help="Seal to a passphrase and to nothing else: no key is escrowed, and nobody can get the file back for you.",
)
@_PASSPHRASE_FROM
@home_option
@passphrase_option
@until_options
@output_option
@click.pass_context
def seal(
    context: click.Context,
    *,
    file: Path,
    output_file: Path | None,
    force: bool,
    to_passphrase: bool,
    passphrase_from: Path | None,
    home: Path,
    passphrase: Secret | None,
    until_proven: bool,
    wait_seconds: float,
    output: Output,
) -> None:
    """Encrypt FILE with age to your own identity and to a fresh session key, and escrow that session key.

    The result is an ordinary age file. `open` reads it with your identity; when that is lost,
    `recover --file` gets the session key back. Exit codes are those of `escrow`. A sealed file that is overwritten
    with --force is replaced in escrow, too, where its session key is unprovable, missing or disclosed.

    FILE may be `-`, standard input, with --output-file. For a folder: `tar c DIR | strongroom seal - …`.

    Example: `strongroom seal report.pdf`
    """
    if file == STANDARD and output_file is None:
        raise UsageError("standard input has no name to go by", hint="name the sealed file with --output-file")
    if output_file == STANDARD:
        raise UsageError(
            "a sealed file never goes to standard output: it is there whole, with its key in escrow, or not at all",
            hint="name it with --output-file",
        )
    if to_passphrase or passphrase_from is not None:
        if context.get_parameter_source("passphrase") is ParameterSource.COMMANDLINE:
            raise UsageError(
                "--passphrase-file opens this home, which a passphrase for FILE does not need",
                hint="--passphrase-from names the file with the passphrase for FILE",
            )
        _seal_to_passphrase(file, output_file, passphrase_from, force=force, output=output)
        return
    from strongroom_agent.agent import Agent

    waiting = "Waiting for the proof" if until_proven else "Waiting for the receipt"
    with (
        nothing_spooled_is_no_75(),
        ending_in_order(),
        Agent.open(home, passphrase=passphrase) as agent,
        reading("Sealing", file, then=waiting) as watch,
    ):
        sealed = run(
            agent.seal_file(
                file,
                output=output_file,
                overwrite=force,
                wait_seconds=wait_seconds,
                until_proven=until_proven,
                watch=watch,
            )
        )
    output.line(f"sealed {file} to {sealed.path}")
    show_delivery(sealed.delivery, output)


def _seal_to_passphrase(
    file: Path, output_file: Path | None, passphrase_from: Path | None, *, force: bool, output: Output
) -> None:
    from strongroom_agent.files import SUFFIX, seal_to_passphrase

    target = output_file or file.with_name(file.name + SUFFIX)
    if target.exists() and not force:
        # Before anybody is asked.
        raise UsageError(f"{target}: exists", hint="choose another name, or overwrite it with --force")
    passphrase = _passphrase(passphrase_from, confirm=True)
    with (
        nothing_spooled_is_no_75(),
        ending_in_order(),
        reading("Sealing", file, then="Writing to disk") as watch,
    ):
        seal_to_passphrase(file, target, passphrase, overwrite=force, watch=watch)
    if output.json:
        output.document("sealed", {"path": str(target), "escrowed": False})
    output.line(f"sealed {file} to {target}")
    output.line("  Nothing is in escrow: without the passphrase it stays closed for good.")


@click.command("open")
@click.argument("file", type=_FILE_OR_STANDARD_INPUT)
@click.option("--identity", type=EXISTING_FILE, help="A recovered session key, or another age identity file.")
@_PASSPHRASE_FROM
@click.option(
    "--output-file",
    type=click.Path(path_type=Path),
    help="Default: FILE without .age. With `-`, standard output, content counts only at exit code 0.",
)
@click.option("--force", is_flag=True, help="Overwrite the output file.")
@home_option
@output_option
def open_(
    *,
    file: Path,
    identity: Path | None,
    passphrase_from: Path | None,
    output_file: Path | None,
    force: bool,
    home: Path,
    output: Output,
) -> None:
    """Decrypt a sealed FILE with your own identity, with a recovered session key, or with its passphrase.

    What FILE was sealed to is in its header. A passphrase is asked for unless --passphrase-from names its file;
    with that, or with --identity, no home is needed. FILE may be `-`, standard input, with --output-file.

    Example: `strongroom open report.pdf.age --identity session.key`
    """
    from strongroom_agent.files import default_output, opening
    from strongroom_agent.home import Home

    target = output_file or default_output(file)
    if target == STANDARD and output.json:
        raise UsageError("content is never part of a JSON document", hint="use --output-file FILE with -o json")
    with ending_in_order(), opening(file) as sealed:
        if sealed.is_for_passphrase:
            if identity is not None:
                raise UsageError(f"{file}: is sealed to a passphrase, which no identity replaces")
            entered = _passphrase(passphrase_from, confirm=False)
            with reading("Opening", file, then="Writing to disk") as watch:
                sealed.open_with_passphrase(entered, target, overwrite=force, watch=watch)
        else:
            if passphrase_from is not None:
                raise UsageError(f"{file}: is sealed to identities, which no passphrase replaces")
            identity_file = identity or Home.open(home).age_key_file
            with reading("Opening", file, then="Writing to disk") as watch:
                sealed.open_with_identities(identity_file, target, overwrite=force, watch=watch)
    if output.json:
        output.document("open", {"path": str(target)})
    elif target != STANDARD:
        output.line(f"opened {file} to {target}")


def _passphrase(file: Path | None, *, confirm: bool) -> Secret:
    """Return the passphrase of a file that is sealed or opened; asked for without echo, and twice if it is new."""
    from strongroom.crypto.key_file import read_passphrase

    if file is not None:
        return read_passphrase(file)
    try:
        # Standard input may be what is sealed.
        with Path("/dev/tty").open("rb"):
            pass
    except OSError:
        raise UsageError(
            "there is no terminal to ask for the passphrase on", hint="name its file with --passphrase-from"
        ) from None
    return Secret(click.prompt("Passphrase", hide_input=True, err=True, confirmation_prompt=confirm).encode())


@contextmanager
def ending_in_order() -> Iterator[None]:
    """Let `kill` end the command as Ctrl-C does, so that nothing half done stays even where files need names."""

    def end(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
