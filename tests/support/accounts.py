"""Accounts of their own for agents and officers on a real broker, by password and by certificate."""

import json
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.local.certificates import issue_agent
from deploy.local.rabbitmq import PrivateRabbit

from strongroom import topology
from strongroom.broker import ClientCertificate


@contextmanager
def own_account(
    server: PrivateRabbit, name: str, kind: topology.AccountKind = "agent", *, external: bool = False
) -> Iterator[str]:
    """Make an account as `strongroom broker account` does, yield its URL, and delete it; it may be gone by then."""
    password = None if external else secrets.token_urlsafe(12)
    hashed = None if password is None else topology.password_hash(password, secrets.token_bytes(4))
    import_definitions(server, topology.account_definitions(topology.account(name, kind), hashed))
    login = "" if password is None else f"{name}:{password}@"
    try:
        yield f"amqps://{login}127.0.0.1:{server.port}/{topology.VHOST}"
    finally:
        if name in users(server):
            server.rabbitmqctl("delete_user", name)


def users(server: PrivateRabbit) -> list[str]:
    """The names of all accounts of a broker."""
    return [line.split()[0] for line in server.rabbitmqctl("list_users", "--no-table-headers").splitlines()]


def import_definitions(server: PrivateRabbit, document: dict[str, object]) -> None:
    """Import a definitions document into a running broker."""
    with tempfile.TemporaryDirectory() as folder:
        # The broker's own user has to read it.
        Path(folder).chmod(0o755)
        file = Path(folder) / "definitions.json"
        file.write_text(json.dumps(document))
        file.chmod(0o644)
        server.rabbitmqctl("import_definitions", str(file))


def certificate(server: PrivateRabbit, name: str, folder: Path) -> ClientCertificate:
    """Issue a certificate with this common name; its files lie in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    files = ClientCertificate(folder / "client.pem", folder / "client.key")
    for file, content in zip((files.file, files.key_file), issue_agent(server.place, name), strict=True):
        file.write_bytes(content)
        file.chmod(0o600)
    return files
