"""Commands that ask the recovery worker: recover, records."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import rich_click as click

from strongroom.crypto.secret import Secret
from strongroom.errors import ExitCode, TransientError, UsageError
from strongroom_cli.arguments import check_principal, check_record
from strongroom_cli.destination import check_destination, destination, is_stdout
from strongroom_cli.options import EXISTING_FILE, home_option, output_option, passphrase_option, wait_option
from strongroom_cli.output import Output, carry_out, legible, progress, run, when
from strongroom_cli.unwrapping import FORMS, Wish, wish_of, wrapping_lines

if TYPE_CHECKING:
    from strongroom_agent.agent import Asked, Recovery, Unreleased

ANSWER_SECONDS: Final = 60.0
WAIT_SECONDS_MAX: Final = 7 * 86_400
_PROGRESS_WIDTH: Final = 66  # of 80 columns, beside the spinner and the time


@click.command()
@click.option("--name", help="Recover the newest key of this name.")
@click.option("--record", help="Recover the key of this record id.")
@click.option(
    "--file",
    "sealed",
    type=EXISTING_FILE,
    help="The session key of a sealed file.",
)
@click.option("--principal", help="Whose key; default: this host's own.")
@click.option("--reason", default="", help="Why; it is kept with the request.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Write the key to this new file, mode 0600; `-` for standard output.",
)
@click.option("--force", is_flag=True, help="Overwrite the output file.")
@click.option("--reveal", is_flag=True, help="Print the key on the terminal.")
@click.option(
    "--unwrap",
    is_flag=True,
    help="Of a key that another program wrapped for the authority: what is inside. An officer has to approve it,"
    " whatever policy says.",
)
@click.option(
    "--as",
    "form",
    type=click.Choice(FORMS),
    help="Unwrap, and write: the bare key or content (`key`, what --unwrap alone does), a PLAINTEXTKEYBLOB, or a"
    " SIMPLEBLOB for the public key in --to.",
)
@click.option(
    "--to",
    "recipient",
    type=EXISTING_FILE,
    metavar="PUBLICKEYBLOB",
    help="File with the public key of the program that shall import the SIMPLEBLOB.",
)
@click.option(
    "--padding",
    type=click.Choice(["pkcs1", "oaep"]),
    help="Of that SIMPLEBLOB; `oaep` is for programs that import with CRYPT_OAEP.  [default: that of the blob which"
    " was escrowed]",
)
@click.option("--new", "anew", is_flag=True, help="Sign a new request, and drop the one that is kept and waits.")
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(0.1, WAIT_SECONDS_MAX),
    metavar="SECONDS",
    help="How long to wait for the key, officers' approvals included, at most 7 days. Without it: for one answer,"
    f" {ANSWER_SECONDS:.0f} s.",
)
@home_option
@passphrase_option
@output_option
def recover(
    *,
    name: str | None,
    record: str | None,
    sealed: Path | None,
    principal: str | None,
    reason: str,
    out: Path | None,
    force: bool,
    reveal: bool,
    unwrap: bool,
    form: str | None,
    recipient: Path | None,
    padding: str | None,
    anew: bool,
    wait_seconds: float | None,
    home: Path,
    passphrase: Secret | None,
    output: Output,
) -> None:
    """Get an escrowed key back.

    The request is signed with this home's key; the answer is sealed to a one-time key that never leaves this
    home. The release is on the record before the key is here. Exit code 1, with the key written, when the
    authority no longer lists a record of that name that this host holds a receipt for: the key may be an old one.

    Where policy asks for approvals or a delay, the request is kept in the home for 7 days: exit code 5 says what it
    waits for, and the same command takes it up again. Exit code 4: it was denied. 75: try later.

    A key that another program wrapped (`escrow --format`) comes back as it was escrowed, and with --unwrap or --as
    as what is inside. Nobody has signed for that: whether it is the right key shows when it opens what it should.

    Example: `strongroom recover --name disk --principal laptop-0417 --reason "disk replaced" --out k2 --wait 3600`
    or `strongroom recover --name archive --as cryptoapi-simple --to my-public.blob --out mine.blob`
    """
    from strongroom_agent.agent import Agent
    from strongroom_agent.files import name_of

    if sum(choice is not None for choice in (name, record, sealed)) != 1:
        raise UsageError("give exactly one of --name, --record and --file")
    check_principal("--principal", principal)
    if record is not None:
        check_record(record)
    check_destination(out, force=force, reveal=reveal, json=output.json)
    wish = wish_of(form, recipient, padding, unwrap=unwrap)
    if sealed is not None:
        _check_has_session_key(sealed)
    told = _Told(output, reason)
    # The file is there before the authority is asked: a key that has no place to go is not released.
    with (
        Agent.open(home, passphrase=passphrase) as agent,
        destination(out, force=force) as stream,
        told.outcome(),
    ):
        with progress("Asking the authority") as show:
            recovery = run(
                agent.recover(
                    name=name_of(sealed) if sealed else name,
                    records=[record] if record else None,
                    principal=principal,
                    reason=reason,
                    unwrap=wish.unwrap,
                    anew=anew,
                    follow=wait_seconds is not None,
                    watch=told.watch(show),
                    wait_seconds=wait_seconds or ANSWER_SECONDS,
                )
            )
        stream.write(wish.content(recovery.keys[0]).expose())
    # The key is where it shall stay, so the request and its one-time key are of no use any more.
    recovery.settle()
    if output.json:
        output.document("recovery", _document(recovery, wish, out))
    else:
        _tell(recovery, wish, out)
    if recovery.missing:
        # A newer key may have been hidden from the authority: this one may be old.
        sys.exit(ExitCode.FAILED)


def _check_has_session_key(file: Path) -> None:
    """Raise UsageError for a file that is sealed to a passphrase: the authority has nothing of it."""
    from strongroom_agent.files import opening

    with opening(file) as content:
        if content.is_for_passphrase:
            raise UsageError(
                f"{file}: is sealed to a passphrase, and nothing of it is in escrow",
                hint=f"`strongroom open {file}` asks for it",
            )


class _Told:
    """Says of the request that a command asks by what people, officers and programs have to know of it."""

    def __init__(self, output: Output, reason: str) -> None:
        self._output = output
        self._reason = reason
        self._asked: Asked | None = None
        self._waits: set[str] = set()

    def watch(self, show: Callable[[str], None]) -> "Callable[[Asked, Unreleased | None], None]":
        """Give what says, while the command runs, what is waited for; `show` is the line of the progress."""

        def watch(asked: "Asked", answer: "Unreleased | None") -> None:
            self._asked = asked
            if answer is not None:
                show(_short(_heading(answer)))
                if asked.id not in self._waits:
                    self._waits.add(asked.id)
                    self._say("".join(f"{line}\n" for line in _waiting(answer, next_=_officers(answer))))
            elif asked.was_kept:
                self._say(f"  taking up request {asked.id} of {when(asked.issued_at)}\n")
                if self._reason and self._reason != asked.reason:
                    own = legible(asked.reason)
                    self._say(f'  it goes on with its own reason, "{own}"; --new signs a new request\n')

        return watch

    @contextmanager
    def outcome(self) -> Iterator[None]:
        """Tell of a request that brought no key; the error goes on, except one that is told here already."""
        from strongroom_agent.agent import Unreleased

        try:
            yield
        except Unreleased as error:
            if self._output.json:
                self._output.document("recovery", _unreleased_document(error))
            elif error.is_waiting:
                lines = _waiting(error, next_=_next(error))
                if error.asked.id in self._waits:
                    # What identifies the request was said when it began to wait.
                    lines = [lines[0], lines[-1]]
                click.echo("\n".join(lines), err=True)
                sys.exit(error.exit_code)
            raise
        except TransientError as error:
            if self._asked is not None and self._asked.is_kept:
                kept = f"request {self._asked.id} is kept"
                error.hint = f"{error.hint}; {kept}" if error.hint else f"{kept}: give the same command again"
            raise
        except KeyboardInterrupt:
            if self._asked is not None and self._asked.is_kept:
                self._say(f"\nrequest {self._asked.id} is kept: the same command goes on with it\n")
            raise

    def _say(self, text: str) -> None:
        # Not by click: the display of the progress makes room only for what is written to standard error itself.
        if not self._output.json:
            sys.stderr.write(text)


def _waiting(error: "Unreleased", *, next_: str) -> list[str]:
    """Say what a request waits for, and what officers compare before they approve it."""
    asked = error.asked
    what = "waiting for approval" if error.is_waiting and not error.is_approved else "waiting"
    lines = [
        f"{what}: {legible(error.outlook)}",
        f"  request     {asked.id}",
        f"  expires     {when(asked.expires_at)}",
        f"  digest      sha256:{asked.digest}",
        f"  recipient   {asked.recipient_key}",
    ]
    if error.retry_at is not None and not error.is_approved:
        lines.append(f"  not before  {when(error.retry_at)}")
    if asked.unwrap:
        lines.append("  unwrapping  is always approved by an officer, whatever policy says")
    return [*lines, f"  next: {next_}"] if next_ else lines


def _heading(error: "Unreleased") -> str:
    if error.is_waiting and not error.is_approved:
        return f"{legible(error.outlook)}: waiting for approval"
    return legible(error.outlook)


def _officers(error: "Unreleased") -> str:
    if not error.is_waiting or error.is_approved:
        return ""
    return f"officers run `strongroom requests` and `strongroom approve {error.asked.id}`"


def _next(error: "Unreleased") -> str:
    if error.is_approved:
        return f"give the same command again from {when(error.retry_at)} on, or now with --wait SECONDS"
    return f"{_officers(error)}; then give the same command again, or give it now with --wait SECONDS"


def _short(text: str) -> str:
    return text if len(text) <= _PROGRESS_WIDTH else text[: _PROGRESS_WIDTH - 1] + "…"


def _unreleased_document(error: "Unreleased") -> dict[str, object]:
    asked = error.asked
    return unreleased_document(error) | {
        "principal": asked.principal,
        "reason": asked.reason,
        "recipient_key": asked.recipient_key,
        "unwrap": asked.unwrap,
    }


def unreleased_document(error: "Unreleased") -> dict[str, object]:
    """Return what programs are told of any request that brought no key."""
    asked = error.asked
    return {
        "request": asked.id,
        "digest": f"sha256:{asked.digest}",
        "state": error.state.value,
        "code": error.remote_code,
        "message": error.words,
        "expires_at": asked.expires_at,
        "retry_at": error.retry_at,
    }


def _document(recovery: "Recovery", wish: Wish, out: Path | None) -> dict[str, object]:
    record = recovery.keys[0].record
    return {
        "request": recovery.request_id,
        "digest": f"sha256:{recovery.digest}",
        "state": "released",
        "record": {
            "id": record.id,
            "name": record.name,
            "kind": record.kind,
            "serial_number": record.serial_number,
            "description": record.description,
            "algorithm": record.algorithm,
            "fingerprint": record.fingerprint,
            "wrapping": record.wrapping.model_dump(mode="json") if record.wrapping else None,
        },
        "unwrapped": wish.unwrap,
        "as": wish.form,
        "log_index": recovery.log_index,
        "out": str(out),
        "history": [{"id": e.id, "issued_at": e.issued_at, "fingerprint": e.fingerprint} for e in recovery.history],
        "missing": list(recovery.missing),
    }


def _tell(recovery: "Recovery", wish: Wish, out: Path | None) -> None:
    record = recovery.keys[0].record
    where = "" if is_stdout(out) else f", written to {out}"
    lines = [
        f"recovered {record.name}: record {record.id}{where}",
        f"  release     recovery log, index {recovery.log_index}: verified",
        "  fingerprint matches what the owner signed",
        *wrapping_lines(record, wish),
    ]
    lines += [
        f"  also        record {entry.id} of {when(entry.issued_at)} (recover it with --record)"
        for entry in recovery.history
        if entry.id != record.id
    ]
    lines += [f"  MISSING at the authority although a receipt is here: record {id_}" for id_ in recovery.missing]
    click.echo("\n".join(lines), err=True)


@click.command()
@click.option("--principal", help="Whose records; default: this host's own.")
@home_option
@passphrase_option
@wait_option(60.0)
@output_option
def records(
    principal: str | None, home: Path, passphrase: Secret | None, wait_seconds: float, output: Output
) -> None:
    """List the records that the authority holds, from its own signed answer.

    Example: `strongroom records -o json`
    """
    from strongroom_agent.agent import Agent

    check_principal("--principal", principal)
    with Agent.open(home, passphrase=passphrase) as agent:
        work = agent.records(principal=principal, wait_seconds=wait_seconds)
        page = carry_out("Asking the authority", work)
    found = page.records
    if output.json:
        document = {
            "records": [record.model_dump(mode="json") for record in found],
            "unreadable": [record.model_dump(mode="json") for record in page.unreadable],
        }
        output.document("records", document)
        return
    output.table(
        ["name", "state", "stored", "proven", "serial number", "record"],
        [(r.name, r.state.value, when(r.stored_at), when(r.proven_at), r.serial_number, r.id) for r in found],
    )
    for lost in page.unreadable:
        click.echo(f"  UNPROVABLE: record {lost.id} is not what was accepted [{lost.code}]", err=True)
