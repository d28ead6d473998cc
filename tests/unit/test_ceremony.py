import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest
from tests.support.containers import CONTAINER, FINAL, ROOT, SECRETS, Service, copies, load_compose, mounts

from strongroom.crypto.key_file import read_passphrase, read_signing_key
from strongroom.crypto.keyring import FileKeyring
from strongroom.roster import Roster
from strongroom.settings import QueueWorkerSettings, read_root_key, read_roster
from strongroom.topology import USERS
from strongroom_escrow.settings import EscrowSettings
from strongroom_recovery.settings import RecoverySettings

SERVICES: dict[str, Service] = load_compose()["services"]
WORKERS: dict[str, type[QueueWorkerSettings]] = {"escrow": EscrowSettings, "recovery": RecoverySettings}
every_worker = pytest.mark.parametrize("worker", WORKERS)


@dataclass(frozen=True, slots=True)
class Ceremony:
    """The volumes of the ceremony as folders, and the script laid out as in the image."""

    root: Path
    share: Path

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `setup` on the volumes."""
        path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
        return subprocess.run(
            [self.share / "setup", self.root],
            env={"PATH": path, "HOME": str(self.root.parent), "TMPDIR": str(self.root.parent), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def files(self, folder: str = "") -> dict[str, bytes]:
        """Return every file of all volumes, or of one, by its path."""
        base = self.root / folder
        return {str(path.relative_to(base)): path.read_bytes() for path in base.rglob("*") if path.is_file()}


def lay_out(place: Path) -> Ceremony:
    """Make fresh volumes, and a copy of what the Dockerfile puts into /opt/strongroom/share."""
    for target in mounts(SERVICES["setup"]):
        (place / "volumes" / Path(target).name).mkdir(parents=True)
    for sources, target in copies(FINAL):
        folder = place / Path(target).relative_to("/opt/strongroom")
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, folder, dirs_exist_ok=True)
            else:
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, folder)
    return Ceremony(place / "volumes", place / "share")


def test_demo_needs_only_what_the_image_has(tmp_path: Path) -> None:
    """The demo's program loads from the copied files alone, without this repository, and asks for its arguments."""
    ceremony = lay_out(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "deploy.container.demo"],
        env={"PYTHONPATH": str(ceremony.share), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "OFFICERS_FOLDER FILE" in done.stderr


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ceremony, str]:
    """Volumes after the first run, and what that printed. Tests leave them as they are."""
    ceremony = lay_out(tmp_path_factory.mktemp("ceremony"))
    done = ceremony.run(AUTHORITY="keys.example.org", BROKER_ADDRESS="broker.example.org:5671")
    assert done.returncode == 0, done.stderr
    return ceremony, done.stdout + done.stderr


@pytest.fixture
def copied(founded: tuple[Ceremony, str], tmp_path: Path) -> Ceremony:
    """A copy of the founded volumes, to be damaged."""
    ceremony, _ = founded
    shutil.copytree(ceremony.root, tmp_path / "volumes")
    return Ceremony(tmp_path / "volumes", ceremony.share)


def secret_texts(ceremony: Ceremony) -> list[str]:
    """Return every password and passphrase there is, one for each file."""
    files = ceremony.files()
    return [body.decode().strip() for name, body in files.items() if fnmatch(name, "*pass*") and "/" in name]


@every_worker
def test_ceremony_makes_what_the_worker_reads(
    worker: str, founded: tuple[Ceremony, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With compose's own environment the worker's settings load, its roster verifies and its keys open."""
    ceremony, _ = founded
    folder = ceremony.root / worker
    for name, value in SERVICES[worker]["environment"].items():
        monkeypatch.setenv(name, value.replace(SECRETS, str(folder)))
    settings = WORKERS[worker].load()
    assert settings.passphrase_file is not None
    assert settings.broker_ca_file is not None
    roster = Roster.verified(read_roster(settings.roster_file), read_root_key(settings.root_key_file))
    assert roster.body.authority == "keys.example.org"
    passphrase = read_passphrase(settings.passphrase_file)
    log_key = read_signing_key(settings.log_key_file, passphrase)
    reply_key = read_signing_key(settings.reply_key_file, passphrase)
    assert log_key.public_key == getattr(roster.body.logs, worker).public_key
    assert reply_key.public_key == getattr(roster.body.replies, worker)
    assert f"/strongroom_{worker}:".replace("/", "//") in settings.database_url.get_secret_value()
    assert settings.database_url.get_secret_value().endswith(f"sslmode=verify-full&sslrootcert={SECRETS}/ca.pem")
    assert settings.broker_url.get_secret_value().startswith(f"amqps://{worker}:")
    if isinstance(settings, RecoverySettings):
        assert settings.sealing_keys_dir is not None
        keyring = FileKeyring(settings.sealing_keys_dir, passphrase)
        assert set(keyring.kids) == {key.kid for key in roster.body.sealing_keys}
        assert set(keyring.transport_kids) == {key.kid for key in roster.body.transport_keys}


def test_ceremony_gives_sealing_and_root_keys_to_nobody_else(founded: tuple[Ceremony, str]) -> None:
    """Sealing private keys lie in the recovery worker's volume alone, the root's in the one that goes offline."""
    ceremony, _ = founded
    keys = {name for name in ceremony.files() if name.endswith(".key") and "server" not in name}
    assert {name for name in keys if "sealing" in name} == {name for name in keys if "recovery/sealing/" in name}
    assert {name for name in keys if "root" in name} == {"root/root.key"}
    assert {name for name in keys if name.startswith("escrow/")} == {"escrow/log.key", "escrow/reply.key"}
    algorithms = {json.loads(ceremony.files()[name])["algorithm"] for name in keys if name.startswith("escrow/")}
    assert algorithms == {"ed25519"}


def test_ceremony_protects_every_private_key(founded: tuple[Ceremony, str]) -> None:
    """No Strongroom key file is readable without its passphrase, and no file by anybody else."""
    ceremony, _ = founded
    files = ceremony.files()
    keys = [body for name, body in files.items() if name.endswith(".key") and "server" not in name]
    assert len(keys) == 1 + 2 + 2 + 2 + 3
    assert {json.loads(key)["protection"]["kdf"] for key in keys} == {"argon2id"}
    assert {(ceremony.root / name).stat().st_mode & 0o777 for name in files} == {0o600}


def test_ceremony_repeats_no_password_and_prints_none(founded: tuple[Ceremony, str]) -> None:
    """Every account has a password of its own; only the workers share the passphrase of their key files."""
    ceremony, printed = founded
    secrets = secret_texts(ceremony)
    assert len(secrets) == 5 + 6 + 1 + 1 + 2
    assert len(set(secrets)) == len(secrets) - 1
    assert all(len(each) == 48 for each in secrets)
    assert not any(each in printed for each in secrets)


def test_ceremony_renders_definitions_for_every_user(founded: tuple[Ceremony, str]) -> None:
    """The broker's definitions hold a salted hash for each user of the topology, and no password."""
    ceremony, _ = founded
    text = (ceremony.root / "rabbitmq" / "definitions.json").read_text()
    users = {user["name"]: user["password_hash"] for user in json.loads(text)["users"]}
    assert set(users) == {user.name for user in USERS}
    assert all(users.values())
    assert not any(each in text for each in secret_texts(ceremony))


@pytest.mark.parametrize(
    ("server", "name"),
    [
        ("postgres", "postgres"),
        ("rabbitmq", "rabbitmq"),
        ("rabbitmq", "broker.example.org"),
        ("rabbitmq", "localhost"),
    ],
)
def test_certificate_holds_for_the_name(server: str, name: str, founded: tuple[Ceremony, str]) -> None:
    """The private CA, which every client gets, vouches for the server under each name that clients use."""
    ceremony, _ = founded
    ca_file = ceremony.root / "officers" / "ca.pem"
    certificate = ceremony.root / server / "server.pem"
    options = ["-x509_strict", "-purpose", "sslserver", "-verify_hostname", name]
    subprocess.run(
        ["openssl", "verify", "-CAfile", ca_file, *options, certificate], check=True, capture_output=True
    )


def test_second_run_changes_no_secret(copied: Ceremony) -> None:
    """Running it again leaves all as it was, but for the salts of the broker's definitions."""
    before = copied.files()
    done = copied.run()
    assert done.returncode == 0, done.stderr
    after = copied.files()
    assert {name for name in before if after[name] != before[name]} == {"rabbitmq/definitions.json"}
    assert before.keys() == after.keys()


def test_second_run_brings_configuration_up_to_date(copied: Ceremony) -> None:
    """What comes with the image replaces an older version of it in the volumes."""
    stale = [copied.root / "rabbitmq" / "rabbitmq.conf", copied.root / "postgres" / "roles.sql"]
    for path in stale:
        path.write_text("of an older version")
    assert copied.run().returncode == 0
    assert [path.read_bytes() for path in stale] == [
        (CONTAINER / "rabbitmq" / "rabbitmq.conf").read_bytes(),
        (ROOT / "deploy" / "postgres" / "roles.sql").read_bytes(),
    ]


@pytest.mark.parametrize("lost", ["setup", "operator", "escrow", "recovery", "postgres", "rabbitmq"])
def test_lost_volume_is_refused(lost: str, copied: Ceremony) -> None:
    """With one volume empty and others not, it names the volume, fails, and neither makes nor deletes a file."""
    shutil.rmtree(copied.root / lost)
    (copied.root / lost).mkdir()
    before = copied.files()
    done = copied.run()
    assert done.returncode == 1
    assert f'the volume "{lost}" is empty' in done.stderr
    assert copied.files() == before


@pytest.mark.parametrize("taken", ["root", "officers"])
def test_volume_that_was_taken_offline_is_not_missed(taken: str, copied: Ceremony) -> None:
    """Root key and officers' homes belong elsewhere: without them the ceremony is as content as before."""
    shutil.rmtree(copied.root / taken)
    (copied.root / taken).mkdir()
    assert copied.run().returncode == 0
    assert copied.files(taken) == {}


def test_interrupted_first_run_begins_anew(copied: Ceremony) -> None:
    """Leftovers of a first run that did not reach its end are replaced, every one of them."""
    old = secret_texts(copied)
    (copied.root / "recovery" / "unfinished").touch()
    (copied.root / "escrow" / "leftover").touch()
    done = copied.run()
    assert done.returncode == 0, done.stderr
    assert not set(old) & set(secret_texts(copied))
    assert not {"recovery/unfinished", "escrow/leftover"} & copied.files().keys()


def test_failed_first_run_is_known_as_unfinished(tmp_path: Path) -> None:
    """When a step fails, so does the run, and the mark stays that makes the next run begin anew."""
    ceremony = lay_out(tmp_path)
    (ceremony.root / "cards").mkdir()
    (ceremony.root / "cards" / "alice.json").write_text("{}")
    done = ceremony.run()
    assert done.returncode != 0
    assert (ceremony.root / "recovery" / "unfinished").exists()


def test_cards_of_real_officers_are_used(founded: tuple[Ceremony, str], tmp_path: Path) -> None:
    """With cards, the roster names these officers, and no trial officer is made."""
    earlier, _ = founded
    ceremony = lay_out(tmp_path)
    (ceremony.root / "cards").mkdir()
    officers = Roster.verified(
        read_roster(earlier.root / "officers" / "roster.json"),
        read_root_key(earlier.root / "officers" / "root.pub"),
    ).body.officers[:2]
    for number, officer in enumerate(officers):
        card = json.dumps(
            {"name": f"real-{number}", "public_key": json.loads(officer.model_dump_json())["public_key"]}
        )
        (ceremony.root / "cards" / f"{number}.json").write_text(card)
    done = ceremony.run()
    assert done.returncode == 0, done.stderr
    roster = Roster.verified(
        read_roster(ceremony.root / "officers" / "roster.json"),
        read_root_key(ceremony.root / "officers" / "root.pub"),
    )
    assert [officer.name for officer in roster.body.officers] == ["real-0", "real-1"]
    assert set(ceremony.files("officers")) == {"ca.pem", "fleet.url", "officer.url", "roster.json", "root.pub"}
