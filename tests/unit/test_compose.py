import json
import re
import shutil
import subprocess
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.support.containers import (
    CONTAINER,
    ROOT,
    SECRETS,
    Service,
    copies,
    dockerfile_instructions,
    load_compose,
    mounts,
)

from strongroom.settings import EnvironmentSettings, WorkerSettings
from strongroom_cli.settings import BrokerSettings, DatabaseSettings, OperatorBrokerSettings
from strongroom_escrow.settings import EscrowSettings
from strongroom_recovery.settings import ProverSettings, RecoverySettings

SCHEMA = ROOT / "tests" / "vectors" / "compose" / "compose-spec.json"
UID = 65532
SETTINGS: tuple[type[EnvironmentSettings], ...] = (
    *(EscrowSettings, RecoverySettings, ProverSettings),
    *(DatabaseSettings, BrokerSettings, OperatorBrokerSettings),
)
WORKERS: dict[str, type[WorkerSettings]] = {
    "escrow": EscrowSettings,
    "recovery": RecoverySettings,
    "prover": ProverSettings,
}
COMPOSE = load_compose()
SERVICES: dict[str, Service] = COMPOSE["services"]
every_service = pytest.mark.parametrize("name", SERVICES)
every_worker = pytest.mark.parametrize("worker", WORKERS)


def test_compose_file_follows_the_compose_specification() -> None:
    """The file is valid under the specification's own JSON schema."""
    validator = Draft202012Validator(json.loads(SCHEMA.read_text()))
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(COMPOSE)] == []


@every_service
def test_service_is_confined(name: str) -> None:
    """Every service, the two servers too, has another user than root, a read-only root and no capability."""
    service = SERVICES[name]
    assert service["user"] == f"{UID}:{UID}"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"cap_add", "privileged", "pid", "ipc", "devices"} & service.keys()


@every_service
def test_image_is_pinned_to_a_major_version(name: str) -> None:
    """No image is `latest` or nameless: its tag begins with a number."""
    assert re.fullmatch(r"[a-z]+:[0-9]+(\.[0-9]+)*(-[a-z]+)?", SERVICES[name]["image"])


@every_service
def test_environment_holds_no_secret(name: str) -> None:
    """What sounds like a secret, or like a URL that could hold one, is the name of a file."""
    for variable, value in SERVICES[name].get("environment", {}).items():
        if re.search("PASS|PASSWORD|SECRET|TOKEN|COOKIE|CREDENTIAL|URL|KEY", variable):
            assert re.search("_(FILE|DIR)$", variable)
            assert value.startswith("/")
        assert "://" not in value


def test_file_holds_no_password() -> None:
    """Nowhere in the file stands a URL with a login, or a password after a name that sounds like one."""
    text = (ROOT / "docker-compose.yml").read_text()
    assert not re.search(r"://[^/\s]*@", text)
    assert not re.search(r"(?i)(password|passphrase|token)\w*[ \t]*[:=][ \t]*[^\s/]", text)


@every_service
def test_settings_exist(name: str) -> None:
    """Every STRONGROOM_ variable is a field of a settings model, so none is misspelt or forgotten."""
    known = {f"STRONGROOM_{field.upper()}" for model in SETTINGS for field in model.model_fields}
    given = {each for each in SERVICES[name].get("environment", {}) if each.startswith("STRONGROOM_")}
    assert given <= known


@every_worker
def test_worker_is_told_everything_it_requires(worker: str) -> None:
    """Every required setting is given, itself or by its file, and so is what a health check and TLS need."""
    given = set(SERVICES[worker]["environment"])
    fields = WORKERS[worker].model_fields
    required = {f"STRONGROOM_{name.upper()}" for name, field in fields.items() if field.is_required()}
    assert {each for each in required if each not in given and f"{each}_FILE" not in given} == set()
    assert given >= {"STRONGROOM_HEALTH_FILE", "STRONGROOM_PASSPHRASE_FILE"}
    assert ("STRONGROOM_BROKER_CA_FILE" in given) == ("broker_url" in fields)


@every_service
def test_paths_are_mounted(name: str) -> None:
    """Every path in the environment lies on a volume or a tmpfs of the service, or in the image itself."""
    service = SERVICES[name]
    places = [*mounts(service), *(each.split(":")[0] for each in service.get("tmpfs", [])), "/opt/strongroom"]
    for value in service.get("environment", {}).values():
        if value.startswith("/"):
            assert any(Path(value).is_relative_to(place) for place in places), value


def test_only_the_recovery_worker_and_the_prover_see_sealing_keys() -> None:
    """Beside the ceremony that makes them, two services mount the volume with the sealing private keys."""
    holders = {name for name, service in SERVICES.items() if "recovery-secrets" in mounts(service).values()}
    assert holders == {"setup", "recovery", "prover"}


def test_the_prover_shares_state_with_the_recovery_worker_and_reaches_no_broker() -> None:
    """Both write one log: they keep one checkpoint of it. Messages are none of the prover's business."""
    recovery, prover = mounts(SERVICES["recovery"]), mounts(SERVICES["prover"])
    assert prover == recovery
    assert SERVICES["prover"]["networks"] == ["database"]
    assert not any("BROKER" in name or "REPLY" in name for name in SERVICES["prover"]["environment"])


def test_secrets_are_not_shared() -> None:
    """Each volume of secrets is seen by the ceremony and by those whom it was made for, read-only."""
    readers: dict[str, set[str]] = {}
    for name, service in SERVICES.items():
        for source in mounts(service).values():
            if source.endswith("-secrets") and name != "setup":
                readers.setdefault(source, set()).add(name)
        assert all(each.endswith(":ro") for each in service.get("volumes", []) if f":{SECRETS}" in each)
    assert readers == {
        "operator-secrets": {"migrate"},
        "escrow-secrets": {"escrow"},
        "recovery-secrets": {"recovery", "prover"},
        "postgres-secrets": {"postgres", "roles"},
        "rabbitmq-secrets": {"rabbitmq"},
    }


def test_only_the_broker_is_published_and_only_on_loopback() -> None:
    """No other service has a port outside, and no network but the broker's own leads there."""
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"rabbitmq"}
    assert all(port.startswith("127.0.0.1:") for port in published["rabbitmq"])
    outward = {name for name, network in COMPOSE["networks"].items() if not (network or {}).get("internal")}
    assert {name for name, service in SERVICES.items() if outward & set(service.get("networks", []))} == {
        "rabbitmq"
    }
    assert all(service.get("networks") or service.get("network_mode") == "none" for service in SERVICES.values())


def test_nobody_starts_before_what_it_needs() -> None:
    """Servers wait for the ceremony, workers for the schema, the demo for both workers; nothing merely starts."""
    waits = {
        (name, other, condition["condition"].removeprefix("service_"))
        for name, service in SERVICES.items()
        for other, condition in service.get("depends_on", {}).items()
    }
    assert waits == {
        ("postgres", "setup", "completed_successfully"),
        ("rabbitmq", "setup", "completed_successfully"),
        ("roles", "postgres", "healthy"),
        ("migrate", "roles", "completed_successfully"),
        ("migrate", "rabbitmq", "healthy"),
        ("escrow", "migrate", "completed_successfully"),
        ("recovery", "migrate", "completed_successfully"),
        ("prover", "migrate", "completed_successfully"),
        ("demo", "escrow", "healthy"),
        ("demo", "recovery", "healthy"),
    }


def test_long_running_services_come_back_and_are_watched() -> None:
    """What must run is started again when it ends, and has a health check; what runs once has neither."""
    lasting = {name for name, service in SERVICES.items() if service["restart"] == "unless-stopped"}
    assert lasting == {"postgres", "rabbitmq", "escrow", "recovery", "prover"}
    watched = {name for name, service in SERVICES.items() if "test" in service.get("healthcheck", {})}
    assert watched == lasting


def test_image_runs_as_the_user_that_compose_names() -> None:
    """The last stage ends as uid 65532, runs `strongroom` and has a health check of its own."""
    instructions = {words[0]: words[1:] for words in dockerfile_instructions()}
    assert instructions["USER"] == [f"{UID}:{UID}"]
    assert instructions["ENTRYPOINT"] == ["[strongroom]"]
    assert instructions["HEALTHCHECK"][-4:] == ["strongroom", "doctor", "--health", "$STRONGROOM_HEALTH_FILE"]


def test_image_installs_nothing_without_a_hash() -> None:
    """Whatever pip installs from an index carries hashes; the one that does not is this project's own wheel."""
    commands = re.findall(r"pip (?:--python \S+ )?install[^&]*", (CONTAINER / "Dockerfile").read_text())
    assert len(commands) == 3
    assert [("--require-hashes" in each, "--no-index" in each) for each in commands] == [
        (True, False),
        (True, False),
        (False, True),
    ]


def test_image_prepares_every_volume() -> None:
    """A fresh volume takes its owner from the image, which has each folder that the ceremony or a worker writes."""
    prepared = (CONTAINER / "Dockerfile").read_text()
    loop = re.search(r"for each in ([a-z ]+);", prepared)
    assert loop is not None
    made = {f"/srv/strongroom/{name}" for name in loop.group(1).split()} | {"/var/lib/strongroom"}
    written = {target for name in ("setup", *WORKERS) for target in mounts(SERVICES[name]) if target != SECRETS}
    assert written == made
    assert "install -d -m 0700 -o 65532 -g 65532 /var/lib/strongroom" in prepared


def test_build_context_is_what_the_image_copies() -> None:
    """Every copied file passes .dockerignore, and nothing passes that no instruction copies: no .git, no .local."""
    patterns = (ROOT / ".dockerignore").read_text().splitlines()
    admitted = {line[1:] for line in patterns if line.startswith("!")}
    copied = {source for sources, _ in copies(0) for source in sources}
    assert "*" in patterns
    assert {each for each in copied if not any(Path(each).is_relative_to(place) for place in admitted)} == set()
    assert {each for each in admitted if not any(Path(source).is_relative_to(each) for source in copied)} == set()
    assert [source for source in copied if not (ROOT / source).exists()] == []


def test_build_tools_are_complete() -> None:
    """The awk program picks exactly the build front end, the build back end and all that these require."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted, found = {"build", *(Requirement(each).name for each in project["build-system"]["requires"])}, set()
    while wanted:
        name = canonicalize_name(wanted.pop())
        found.add(name)
        for requirement in map(Requirement, requires(name) or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted |= {requirement.name} - found
    picked = subprocess.run(
        ["awk", "-f", CONTAINER / "build-tools.awk", ROOT / "requirements-dev.txt"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert set(re.findall(r"(?m)^([a-z0-9-]+)==", picked)) == found
    assert all("--hash=sha256:" in entry for entry in re.split(r"(?m)^(?=[a-z])", picked) if entry)


@pytest.mark.parametrize(
    "script",
    ["build", "setup", "migrate", "postgres/start", "postgres/roles"],
    ids=lambda script: Path(script).name,
)
def test_script_is_sound(script: str) -> None:
    """ShellCheck has nothing to say about it; where that is not installed, at least the shell can read it."""
    checker = ["shellcheck"] if shutil.which("shellcheck") else ["bash", "-n"]
    done = subprocess.run([*checker, CONTAINER / script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
