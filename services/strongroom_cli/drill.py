"""The command for the restore drill."""

import sys
import time
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import rich_click as click

from strongroom.crypto.secret import Secret
from strongroom.errors import ExitCode, KeyFileInvalid, UsageError
from strongroom_cli.options import output_option, read_text
from strongroom_cli.output import Output, lasting, legible, progress, run, when

if TYPE_CHECKING:
    from strongroom.crypto.keyring import Keyring
    from strongroom_recovery.drill.report import LogState, Report
    from strongroom_recovery.drill.restored import Cluster, Dump, Place, Say
    from strongroom_recovery.drill.sample import Means

T = TypeVar("T")

SEED_MAX: Final = 2**63 - 1

_PATH: Final = click.Path(path_type=Path)
_SHOWN_FAILURES_MAX: Final = 50


@click.command()
@click.option("--dump", type=_PATH, metavar="FILE", help="A backup by pg_dump: custom, tar or plain format.")
@click.option("--cluster", type=_PATH, metavar="DIR", help="A backup by pg_basebackup in plain format.")
@click.option(
    "--wal", type=_PATH, metavar="DIR", help="With --cluster: replay the segments archived in this folder, too."
)
@click.option(
    "--in-place", is_flag=True, help="With --cluster: use DIR itself, not a copy; it is no backup afterwards."
)
@click.option("--database", default="strongroom", show_default=True, help="With --cluster: the database in there.")
@click.option(
    "--database-url-file", type=_PATH, metavar="FILE", help="The URL of a database that is restored already."
)
@click.option("--keys", type=_PATH, metavar="DIR", help="The backup of the sealing keys (*.key).")
@click.option("--pkcs11", metavar="URI", help="A PKCS #11 token with sealing keys; beside --keys, or alone.")
@click.option("--pin-file", type=_PATH, metavar="FILE", help="Its PIN, where the URI has no pin-source.")
@click.option("--root-key", type=_PATH, required=True, metavar="FILE", help="The pinned root public key, root.pub.")
@click.option(
    "--passphrase-file",
    type=_PATH,
    envvar="STRONGROOM_PASSPHRASE_FILE",
    metavar="FILE",
    help="File whose first line opens the key files.  [env: STRONGROOM_PASSPHRASE_FILE]",
)
@click.option("--records", type=click.IntRange(1), default=100, show_default=True, help="How many to open.")
@click.option("--all", "everything", is_flag=True, help="Open every record.")
@click.option("--seed", type=click.IntRange(0, SEED_MAX), help="Picks the same records again.  [default: random]")
@click.option(
    "--state-dir",
    "state_dirs",
    type=_PATH,
    multiple=True,
    metavar="DIR",
    help="State folder of a worker: say how much was committed after the backup. May be repeated.",
)
@click.option("--work-dir", type=_PATH, metavar="DIR", help="Where to restore to.  [default: TMPDIR, or /tmp]")
@click.option("--postgres-bin", type=_PATH, metavar="DIR", help="PostgreSQL's programs, if they are not found.")
@click.option("--as-user", metavar="USER", help="Run as root: who runs the server.  [default: postgres]")
@click.option("--keep", is_flag=True, help="Leave the restored cluster in the work folder, stopped.")
@output_option
def drill(
    *,
    dump: Path | None,
    cluster: Path | None,
    wal: Path | None,
    in_place: bool,
    database: str,
    database_url_file: Path | None,
    keys: Path | None,
    pkcs11: str | None,
    pin_file: Path | None,
    root_key: Path,
    passphrase_file: Path | None,
    records: int,
    everything: bool,
    seed: int | None,
    state_dirs: tuple[Path, ...],
    work_dir: Path | None,
    postgres_bin: Path | None,
    as_user: str | None,
    keep: bool,
    output: Output,
) -> None:
    """Prove that keys can be given back from a backup: restore it in an empty place, and open records.

    It needs the database's backup (--dump, --cluster or --database-url-file), the sealing keys (their backup with
    --keys, those on a token with --pkcs11) and root.pub, and nothing else of the authority: no worker, no broker,
    no roster, no log key. Records are picked at random; each is verified up to the root key and opened, no key is
    shown, and everything is removed afterwards.
    Exit code 0 only if every one was opened and nothing else is wrong with the backup.

    Run it as root: then the restored server runs as another user, who can read no key.

    Example: `strongroom drill --dump strongroom.dump --keys sealing --root-key root.pub`
    """
    import secrets
    import tempfile

    from strongroom.hardening import harden_process
    from strongroom.settings import read_root_key
    from strongroom_recovery.drill.restored import Place
    from strongroom_recovery.drill.sample import Means

    source = _source(dump, cluster, database_url_file, wal=wal, in_place=in_place, database=database)
    harden_process()
    folder = work_dir or Path(tempfile.gettempdir())
    means = Means(read_root_key(root_key), _keyring(keys, pkcs11, pin_file, passphrase_file), folder, state_dirs)
    place = Place(folder, programs=postgres_bin, account=as_user, keep=keep)
    count = None if everything else records
    chosen = secrets.randbelow(SEED_MAX + 1) if seed is None else seed
    with progress("Beginning") as say:
        report, seconds, kept = _until_interrupted(_drill(source, place, means, say, count=count, seed=chosen))
    described = "database" if isinstance(source, str) else type(source).__name__.lower()
    path = database_url_file or dump or cluster
    if output.json:
        taken_from = {"kind": described, "path": str(path)}
        output.document(
            "drill", {"source": taken_from, "restore_seconds": round(seconds, 3), "kept": kept, **report.document()}
        )
    else:
        _show(report, f"{described} {path}", seconds, kept, output)
    sys.exit(ExitCode.DONE if report.is_passed else ExitCode.FAILED)


def _source(
    dump: Path | None,
    cluster: Path | None,
    url_file: Path | None,
    *,
    wal: Path | None,
    in_place: bool,
    database: str,
) -> "Dump | Cluster | str":
    """Return the one source that was named; a URL is a secret."""
    from strongroom_recovery.drill.restored import Cluster, Dump

    if sum(each is not None for each in (dump, cluster, url_file)) != 1:
        raise UsageError(
            "name one backup: --dump, --cluster or --database-url-file", hint="`strongroom drill --help` shows how"
        )
    if cluster is not None:
        return Cluster(cluster, wal, in_place, database)
    if wal is not None or in_place:
        raise UsageError("--wal and --in-place go with --cluster")
    if dump is not None:
        return Dump(dump)
    assert url_file is not None  # noqa: S101 - one of the three is there
    return read_text("--database-url-file", url_file).strip()


def _keyring(keys: Path | None, uri: str | None, pin_file: Path | None, passphrase_file: Path | None) -> "Keyring":
    """Read the keys, before anything that takes long."""
    from strongroom.crypto.key_file import read_passphrase
    from strongroom.crypto.keyring import open_keyring

    if keys is None and uri is None:
        raise UsageError(
            "no sealing keys are named: --keys or --pkcs11", hint="`strongroom drill --help` shows how"
        )
    passphrase: Secret | None = read_passphrase(passphrase_file) if passphrase_file else None
    with progress("Reading the sealing keys"):
        try:
            return open_keyring(uri, keys, pin_file=pin_file, passphrase=passphrase)
        except KeyFileInvalid as error:
            hint = error.hint
            if passphrase is None and "passphrase" in error.message:
                hint = "name the file with its passphrase: --passphrase-file FILE"
            elif "signing key" in error.message:
                hint = "--keys names the folder of the sealing keys alone: keys/recovery/sealing of the ceremony"
            raise KeyFileInvalid(error.message, hint=hint) from None


async def _drill(
    source: "Dump | Cluster | str", place: "Place", means: "Means", say: "Say", *, count: int | None, seed: int
) -> "tuple[Report, float, str | None]":
    """Restore, if need be, and drill; return the report, the seconds that restoring took, and what was kept."""
    from strongroom.database import connect
    from strongroom_recovery.drill.report import Finding
    from strongroom_recovery.drill.restored import restored
    from strongroom_recovery.drill.sample import COMMAND_SECONDS_MAX, drill
    from strongroom_recovery.drill.trust import OTHER_BACKUP

    if isinstance(source, str):
        async with connect(source, command_timeout_seconds=COMMAND_SECONDS_MAX) as database:
            return await drill(database, means, count=count, seed=seed, say=say), 0.0, None
    async with (
        restored(source, place, say) as backup,
        connect(backup.url, command_timeout_seconds=COMMAND_SECONDS_MAX) as database,
    ):
        report = await drill(database, means, count=count, seed=seed, say=say)
        if backup.complaint is not None:
            damaged = Finding("state_corrupt", backup.complaint, OTHER_BACKUP)
            report = replace(report, findings=[damaged, *report.findings])
        say("Removing what was restored")
        return report, backup.seconds, str(backup.folder) if place.keep else None


def _until_interrupted(work: Coroutine[Any, Any, T]) -> T:
    """Run work to its end; SIGINT, SIGTERM or SIGHUP ends it, and it has cleaned up when click.Abort is raised."""
    import asyncio
    import signal

    async def cancellable() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.create_task(work)

        def cancel() -> None:
            # Once: a second signal must not end the cleaning up.
            if not task.cancelling():
                task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, cancel)
        return await task

    try:
        return run(cancellable())
    except asyncio.CancelledError:
        click.echo("interrupted: nothing is left of what was restored", err=True)
        raise click.Abort from None


def _show(report: "Report", source: str, seconds: float, kept: str | None, output: Output) -> None:
    """Print the report for people."""
    from strongroom_recovery.drill.report import sampling_statement

    said = {
        "authority": f"{report.authority}, roster version {report.roster_version}, schema {report.migration}",
        "backup": f"{source}: {report.records} records in {report.statements} statements",
        "escrow log": _log(report.escrow_log, "statements"),
        "recovery log": _log(report.recovery_log, "entries"),
    }
    for key in report.sealing_keys:
        state = key.state or "not in the roster"
        said[f"key {key.kid[:8]}"] = f"{'held' if key.is_held else 'MISSING'}, {state}, {key.records} records"
    seed = "all of them" if report.seed is None else f"seed {report.seed}"
    said["looked at"] = f"{report.sampled} records ({seed}): {report.opened} opened, {report.failed} failed"
    if report.late:
        said["late"] = f"{report.late} of the opened ones are by a key that was not in force"
    said["which means"] = sampling_statement(report)
    rate = f"{report.records_per_second:.0f} records/s"
    said["took"] = f"{seconds:.1f} s to restore, {report.check_seconds:.1f} s to check, {rate}"
    if kept:
        said["kept"] = kept
    for name, sentence in said.items():
        output.line(f"{name:14} {legible(sentence)}")
    if report.failures:
        rows = [
            [
                legible(str(each))
                for each in (f.record or f"all of {f.statement}", f.principal, f.name, f.code, f.reason)
            ]
            for f in report.failures[:_SHOWN_FAILURES_MAX]
        ]
        output.table(["record", "principal", "name", "code", "reason"], rows)
    if (more := len(report.failures) - _SHOWN_FAILURES_MAX) > 0:
        output.line(f"and {more} more: -o json lists all")
    if report.unstored:
        output.table(
            ["leaf", "statement", "principal"], [(u.leaf_index, u.statement, u.principal) for u in report.unstored]
        )
    for finding in report.findings:
        output.line(click.style("wrong: ", fg="red", bold=True) + legible(finding.finding))
        output.line(f"  next: {finding.advice}")
    verdict = ("passed", "green") if report.is_passed else ("FAILED", "red")
    output.line(click.style(f"the drill has {verdict[0]}", fg=verdict[1], bold=True))


def _log(log: "LogState", what: str) -> str:
    """Return how long a log is, how old its newest leaf, and what was committed after the backup."""
    parts = [f"{log.leaves} leaves"]
    if log.newest_leaf_at is not None:
        age = lasting(int(time.time()) - log.newest_leaf_at)
        parts.append(f"the newest of {when(log.newest_leaf_at)}, {age} ago")
    if log.behind is not None:
        parts.append(f"{log.behind} {what} were committed after this backup")
    return "; ".join(parts)
