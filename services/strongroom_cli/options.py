"""Options that several commands share, each with one meaning everywhere."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import rich_click as click

from strongroom.crypto.secret import Secret
from strongroom.errors import ConfigurationInvalid, UsageError
from strongroom_cli.output import Output

if TYPE_CHECKING:
    from strongroom_agent.home import BrokerLogin

EXISTING_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)

Command = TypeVar("Command", bound=Callable[..., Any])


def output_option(function: Command) -> Command:
    """Add `-o/--output table|json`; the command receives `output: Output`."""

    def choose(context: click.Context, _parameter: click.Parameter, value: str) -> Output:
        context.meta["strongroom.json"] = value == "json"
        return Output(json=value == "json")

    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        callback=choose,
        is_eager=True,
        help="Tables for people, or one JSON document for programs.",
    )(function)


def home_option(function: Command) -> Command:
    """Add `--home DIR`; the command receives `home: Path`."""

    def choose(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Path:
        if value:
            return Path(value).absolute()
        from strongroom_agent.home import default_home

        return default_home().absolute()

    return click.option(
        "--home",
        envvar="STRONGROOM_HOME",
        metavar="DIR",
        callback=choose,
        help="Folder with keys, roster and spool.  [env: STRONGROOM_HOME; default: $XDG_STATE_HOME/strongroom]",
    )(function)


def passphrase_option(function: Command) -> Command:
    """Add `--passphrase-file FILE`; the command receives `passphrase: Secret | None`."""

    def choose(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Secret | None:
        if not value:
            return None
        from strongroom.crypto.key_file import read_passphrase

        return read_passphrase(Path(value))

    return click.option(
        "--passphrase-file",
        "passphrase",
        envvar="STRONGROOM_PASSPHRASE_FILE",
        metavar="FILE",
        callback=choose,
        help="File whose first line opens the key files of this home.  [env: STRONGROOM_PASSPHRASE_FILE]",
    )(function)


def wait_option(seconds: float) -> Callable[[Command], Command]:
    """Add `--wait SECONDS`: how long to try before leaving the rest to the next `sync`."""
    return click.option(
        "--wait",
        "wait_seconds",
        type=click.FloatRange(0.1, 3600),
        default=seconds,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait for the authority's answer.",
    )


def read_text(option: str, path: Path) -> str:
    """Return the text of a file that an option names; raises ConfigurationInvalid, which never quotes the file."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationInvalid(f"{option}: {error.strerror}: {path}") from None
    except UnicodeDecodeError:
        raise ConfigurationInvalid(f"{option}: is no text: {path}") from None


def broker_login(url_file: Path | None, certificate: Path | None, key: Path | None) -> "BrokerLogin | None":
    """Return what --broker-url-file, --broker-certificate and --broker-key give; None without any of them."""
    from strongroom_agent.home import BrokerLogin

    if (certificate is None) != (key is None):
        raise UsageError("--broker-certificate and --broker-key go together")
    if url_file is None and certificate is None:
        return None
    return BrokerLogin(
        url=read_text("--broker-url-file", url_file).strip() if url_file else None,
        certificate=read_text("--broker-certificate", certificate).encode() if certificate else None,
        key=read_text("--broker-key", key).encode() if key else None,
    )
