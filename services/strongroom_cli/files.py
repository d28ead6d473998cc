"""Commands for files that a lost key shall not lose: seal, open."""

from pathlib import Path

import rich_click as click

from strongroom.crypto.secret import Secret
from strongroom_cli.escrow import nothing_spooled_is_no_75, show_delivery, until_options
from strongroom_cli.options import EXISTING_FILE, home_option, output_option, passphrase_option
from strongroom_cli.output import Output, carry_out, progress


@click.command()
@click.argument("file", type=EXISTING_FILE)
@click.option("--output-file", type=click.Path(path_type=Path), help="Default: FILE.age")
@click.option("--force", is_flag=True, help="Overwrite the output file.")
@home_option
@passphrase_option
@until_options
@output_option
def seal(
    *,
    file: Path,
    output_file: Path | None,
    force: bool,
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

    Example: `strongroom seal report.pdf`
    """
    from strongroom_agent.agent import Agent

    with nothing_spooled_is_no_75(), Agent.open(home, passphrase=passphrase) as agent:
        work = agent.seal_file(
            file, output=output_file, overwrite=force, wait_seconds=wait_seconds, until_proven=until_proven
        )
        sealed = carry_out(f"Sealing {file.name}", work)
    output.line(f"sealed {file} to {sealed.path}")
    show_delivery(sealed.delivery, output)


@click.command("open")
@click.argument("file", type=EXISTING_FILE)
@click.option("--identity", type=EXISTING_FILE, help="A recovered session key.")
@click.option("--output-file", type=click.Path(path_type=Path), help="Default: FILE without .age")
@click.option("--force", is_flag=True, help="Overwrite the output file.")
@home_option
@passphrase_option
@output_option
def open_(
    *,
    file: Path,
    identity: Path | None,
    output_file: Path | None,
    force: bool,
    home: Path,
    passphrase: Secret | None,
    output: Output,
) -> None:
    """Decrypt a sealed FILE with your own identity, or with a recovered session key.

    Example: `strongroom open report.pdf.age --identity session.key`
    """
    from strongroom_agent.agent import Agent

    with Agent.open(home, passphrase=passphrase) as agent, progress(f"Opening {file.name}"):
        opened = agent.open_file(file, output=output_file, identity_file=identity, overwrite=force)
    if output.json:
        output.document("open", {"path": str(opened)})
    output.line(f"opened {file} to {opened}")
