"""Where secrets are, and where not: a key is planted, sent the whole way and back, and looked for everywhere."""

import secrets
import shutil
from pathlib import Path

import asyncpg
import pytest
from deploy.local import process
from deploy.local.trial import PROVER, WORKERS, Trial
from tests.e2e.conftest import Enrol
from tests.support.canary import files_that_show, forms_of, shows, tables_that_show
from tests.support.command import Command
from tests.support.processes import open_files

from strongroom.crypto.key_file import read_signing_key
from strongroom.errors import ExitCode, KeyFileInvalid
from strongroom.statements import parse_json


def superuser_url(trial: Trial) -> str:
    return trial.stack.database.administrator_url("strongroom")


def worker(trial: Trial, name: str) -> process.Process:
    found = process.find(trial.stack.place.pid_file(f"{name}-worker"))
    assert found is not None
    return found


async def test_a_key_is_plain_only_where_its_owner_put_it(
    trial: Trial, place: Path, strongroom: Command, operator: Command
) -> None:
    """No output, log, file or table shows a key, a session key, a file's content or a passphrase in any form."""
    passphrase, material, content = (
        secrets.token_hex(16).encode(),
        secrets.token_bytes(32),
        secrets.token_bytes(64),
    )
    (place / "pass").write_bytes(passphrase + b"\n")
    (place / "pass").chmod(0o600)
    (place / "k").write_bytes(material)
    (place / "report").write_bytes(content)
    strongroom.environment["STRONGROOM_PASSPHRASE_FILE"] = "pass"

    (place / "inv.json").write_bytes(strongroom("invite", "canary", home=".local/officer-1").done().out)
    strongroom("enrol", "inv.json", home="h").done()
    described = ("--description", "the planted one", "--serial-number", "C02XYZ", "--label", "a=b")
    strongroom("escrow", "k", "--name", "planted", "--kind", "disk-key", *described, home="h").done()
    trial.stop_worker("escrow")
    strongroom("escrow", "k", "--name", "planted", "--wait", "1", home="h").done(ExitCode.TRY_LATER)
    strongroom("escrow", "k", "--name", "planted", "--wait", "1", "-o", "json", home="h").done(ExitCode.TRY_LATER)
    trial.up(lambda _step: None)
    strongroom("seal", "report", home="h").done()
    for command in ("sync", "status", "records", "doctor"):
        strongroom(command, home="h").done()
        strongroom(command, "-o", "json", home="h").done()
    strongroom("recover", "--name", "planted", "--out", "k2", home="h").done()
    strongroom("recover", "--name", "planted", "--out", "k3", "-o", "json", home="h").done()
    strongroom("recover", "--file", "report.age", "--out", "session.key", home="h").done()
    strongroom("open", "report.age", "--identity", "session.key", "--output-file", "opened", home="h").done()
    operator("quarantine", "list").done()

    session_key = (place / "session.key").read_bytes().strip()
    planted = {"key": material, "passphrase": passphrase, "content": content, "session key": session_key}
    for outcome in (*strongroom.outcomes, *operator.outcomes):
        for secret in planted.values():
            assert not shows(outcome.out + outcome.err.encode(), secret), outcome.arguments

    values, found = await tables_that_show(planted | {"control": b"planted"}, superuser_url(trial))
    assert found
    assert {each.partition(":")[0] for each in found} == {"control"}
    assert values > 100

    # The owner's own files are the control: the search finds what is there.
    (place / ".local").unlink()
    assert sorted(files_that_show(planted, place)) == sorted(
        f"{name}: {place / file}"
        for name, file in (
            *(("key", file) for file in ("k", "k2", "k3")),
            *(("content", file) for file in ("report", "opened")),
            ("passphrase", "pass"),
            ("session key", "session.key"),
        )
    )
    assert files_that_show(planted, trial.folder, trial.stack.place.root) == []


def test_a_key_is_printed_only_when_asked_for(place: Path, strongroom: Command, enrolled: Enrol) -> None:
    """`--out -` and `--reveal` print the key and nothing else on standard output; JSON never holds one."""
    home, material = enrolled("printed"), secrets.token_bytes(32)
    (place / "k").write_bytes(material)
    strongroom("escrow", "k", "--name", "disk", home=home).done()
    for asked in (("--out", "-"), ("--reveal",)):
        outcome = strongroom("recover", "--name", "disk", *asked, home=home).done()
        assert outcome.out == material
        assert not shows(outcome.err.encode(), material)
        strongroom("recover", "--name", "disk", *asked, "-o", "json", home=home).done(ExitCode.USAGE)
    strongroom("recover", "--name", "disk", home=home).done(ExitCode.USAGE)


def test_the_search_knows_every_form_of_a_secret() -> None:
    """Hex in either case, and base64 of either alphabet wherever the secret stands in what was encoded."""
    import base64

    secret = bytes(range(190, 222))
    for before in (b"", b"a", b"ab", b"abc"):
        encoded = base64.b64encode(before + secret + b"and after")
        assert shows(encoded, secret)
        assert shows(base64.urlsafe_b64encode(before + secret), secret)
    assert shows(b"x" + secret.hex().encode(), secret)
    assert shows(secret.hex().upper().encode(), secret)
    assert not shows(bytes(1000), secret)
    assert all(len(form) > len(secret) // 2 for form in forms_of(secret))


# ---- what the workers can reach -----------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "SELECT envelope FROM escrow_statements",
        "SELECT * FROM escrow_statements",
        "SELECT length(envelope) FROM escrow_statements",
        "SELECT escrow_statements FROM escrow_statements",
        "COPY escrow_statements TO STDOUT",
        "INSERT INTO escrow_statements SELECT * FROM escrow_statements RETURNING envelope",
        "SELECT envelope FROM releases",
        "SET ROLE strongroom_recovery",
    ],
)
async def test_the_escrow_workers_database_role_cannot_read_a_blob(trial: Trial, query: str) -> None:
    """With the escrow worker's own URL, every way to a sealed key is closed."""
    connection = await asyncpg.connect(trial.stack.database.url("strongroom_escrow"))
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(query)
    finally:
        await connection.close()


def seen_by(trial: Trial, name: str) -> str:
    """Everything that a worker was told, and every file that it has open."""
    told = (trial.folder / f"{name}.env").read_text()
    proc = Path("/proc") / str(worker(trial, name).pid)
    try:
        environment = (proc / "environ").read_bytes().decode(errors="replace")
        descriptors = open_files(worker(trial, name).pid)
    except PermissionError:
        # Not even its own user may look into it: `test_passphrases` shows that on purpose.
        return told
    return "\n".join([told, environment, *descriptors])


def test_the_escrow_worker_has_no_sealing_private_key(trial: Trial) -> None:
    """Neither its settings, environment and open files nor the folder of its keys lead to one."""
    sealing = trial.folder / "authority" / "recovery" / "sealing"
    # One to seal to, and others for what other programs wrap.
    assert {path.suffix for path in sealing.iterdir()} == {".key"}
    assert str(sealing) in seen_by(trial, "recovery")
    seen = seen_by(trial, "escrow")
    assert "sealing" not in seen.lower()
    assert "recovery" not in seen
    keys = trial.folder / "authority" / "escrow"
    assert str(keys) in seen
    for path in sorted(keys.rglob("*")):
        assert read_signing_key(path, None).key_id
    for path in sealing.iterdir():
        with pytest.raises(KeyFileInvalid, match=r"this is a (sealing|transport) key"):
            read_signing_key(path, None)


def test_a_copy_of_everything_the_escrow_worker_has_opens_no_key(trial: Trial, tmp_path: Path) -> None:
    """Nothing in its key folder and its state is a sealing key, whatever it is called."""
    for name in ("authority/escrow", "escrow"):
        shutil.copytree(trial.folder / name, tmp_path / name)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 3
    for path in files:
        content = path.read_bytes()
        if content.startswith(b"{"):
            document = parse_json(content, what=path.name)
            assert isinstance(document, dict)
            assert document["algorithm"] == "ed25519"


@pytest.mark.parametrize("name", [*WORKERS, PROVER])
def test_a_workers_command_line_shows_no_secret(trial: Trial, name: str) -> None:
    """Everybody may read command lines: this one is the command and nothing else."""
    cmdline = Path("/proc") / str(worker(trial, name).pid) / "cmdline"
    words = [word.decode() for word in cmdline.read_bytes().rstrip(b"\0").split(b"\0")]
    assert words[-2:] == ["worker", name]
    assert len(words) == 4
