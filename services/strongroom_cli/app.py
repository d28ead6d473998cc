"""The root of the command: groups, and the one place where errors become words and exit codes."""

import json
from typing import Any

import rich_click as click
from click.exceptions import Exit, NoArgsIsHelpError

from strongroom.errors import StrongroomError, UsageError
from strongroom_cli import (
    approval,
    attestation,
    authority,
    authority_export,
    authority_keys,
    broker,
    capi,
    coverage,
    db,
    doctor,
    drill,
    enrolment,
    escrow,
    export,
    files,
    importing,
    log,
    officer,
    quarantine,
    recovery,
    requests,
    reseal,
    roster,
    sync,
    worker,
)
from strongroom_cli.hints import hint_for

EPILOG = (
    "Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 denied, 5 waiting for approval, 6 not proven yet, "
    "75 try again later."
)


class _Root(click.RichGroup):
    """Turns every StrongroomError, and what click finds wrong, into one message, one hint and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except NoArgsIsHelpError:
            raise
        except StrongroomError as error:
            failure = error
        except click.UsageError as error:
            command = (error.ctx or ctx).command_path
            failure = UsageError(error.format_message(), hint=f"`{command} --help` shows how")
        _say(failure, as_json=bool(ctx.meta.get("strongroom.json")))
        raise Exit(failure.exit_code)


def _say(error: StrongroomError, *, as_json: bool) -> None:
    if as_json:
        document = {"error": {"code": error.code, "message": error.message, "hint": hint_for(error)}}
        click.echo(json.dumps(document), err=True)
        return
    click.echo(click.style("error: ", fg="red", bold=True) + error.message, err=True)
    if hint := hint_for(error):
        click.echo(click.style("  next: ", bold=True) + hint, err=True)


@click.group(cls=_Root, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="strongroom", prog_name="strongroom")
def cli() -> None:
    """Keep a fleet's session keys with a backup authority, and get them back.

    On a host: `enrol` once, then `escrow`, `import` or `seal`, `sync` by a timer, `attest`, `status`, and `recover`
    when a key is lost. Officers: `officer init`, `invite`, `countersign`, `requests`, `approve`, `deny`, `revoke`,
    `export`. Auditors: `coverage`, `log`. Operators: `authority init`, `db`, `broker`, `worker`, `quarantine`,
    `doctor`, `drill`.
    """


for made in (authority_export.export, roster.sign_roster, authority_keys.add_key, authority_keys.new_root):
    authority.authority.add_command(made)
authority.authority.add_command(reseal.reseal)
authority.authority.add_command(reseal.retire_key)

for command in (
    *(enrolment.card, enrolment.enrol, escrow.escrow, sync.sync, sync.status, files.seal, files.open_),
    *(importing.import_, attestation.attest, recovery.recover, recovery.records),
    *(officer.officer, officer.invite, officer.countersign, export.export),
    *(requests.requests_, approval.approve, approval.deny, approval.revoke, coverage.coverage, log.log),
    *(authority.authority, worker.worker, db.db, broker.broker, quarantine.quarantine, doctor.doctor, drill.drill),
    capi.capi,
):
    cli.add_command(command)

click.rich_click.COMMAND_GROUPS = {
    "*strongroom": [
        {
            "name": "On a host",
            "commands": [
                "card",
                "enrol",
                "escrow",
                "import",
                "seal",
                "open",
                "sync",
                "attest",
                "status",
                "records",
                "recover",
            ],
        },
        {
            "name": "Officers",
            "commands": ["officer", "invite", "countersign", "requests", "approve", "deny", "revoke", "export"],
        },
        {
            "name": "Auditors",
            "commands": ["coverage", "log"],
        },
        {
            "name": "Operators",
            "commands": ["authority", "db", "broker", "worker", "quarantine", "doctor", "drill"],
        },
        {
            "name": "Other people's key blobs",
            "commands": ["capi"],
        },
    ]
}
