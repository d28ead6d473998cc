"""Run both workers from the image against real servers without a Docker engine; as root, after `build`.

`.venv/bin/python -m deploy.container.rehearse [IMAGE]` starts a local Strongroom (deploy/local) in a temporary
folder, puts workers from the image (uid 65532, `buildah run --isolation chroot`) in the place of its own, tells the
demo's story on them, ends them by SIGTERM, and removes everything it made. Exit codes: 0 done, 1 failed, 2 usage.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from signal import SIGTERM
from urllib.parse import quote

from deploy.local.demo import tell
from deploy.local.server import StackError
from deploy.local.trial import WORKERS, Trial

IMAGE = "strongroom:0.1"
UID = 65532
SECRETS = "/run/secrets"
_READY_TIMEOUT_S = 30
_STOP_TIMEOUT_S = 30
_POLL_S = 0.05
_ROOT = Path(__file__).parents[2]


class RehearsalError(Exception):
    """The image does not do what it should; the message says what."""


def buildah(*arguments: str) -> str:
    """Run buildah and return its output.

    Raises:
        RehearsalError: it failed; the message is its own.
    """
    result = subprocess.run(["buildah", *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        raise RehearsalError(f"buildah {arguments[0]} failed: {result.stderr.strip()}")
    return result.stdout.strip()


@contextmanager
def container(image: str) -> Iterator[str]:
    """Hold a container of the image, and remove it."""
    name = buildah("from", "--pull-never", image)
    try:
        yield name
    finally:
        buildah("rm", name)


class ImageWorker:
    """One worker from the image, with a folder of its own for what a volume would hold in docker-compose.yml."""

    def __init__(self, worker: str, trial: Trial, folder: Path) -> None:
        self.worker = worker
        self.secrets, self.state, self.tmp = (folder / worker / name for name in ("secrets", "state", "tmp"))
        self.health_file = self.tmp / "health"
        self.log = folder / f"{worker}.log"
        keys = trial.folder / "authority"
        shutil.copytree(keys / worker, self.secrets)
        self.state.mkdir()
        self.tmp.mkdir()
        for name in ("root.pub", "roster.json"):
            shutil.copy(keys / name, self.secrets)
        database = trial.stack.database.url(f"strongroom_{worker}")
        if (ca_file := trial.stack.broker.ca_file) is not None:
            shutil.copy(ca_file, self.secrets / "ca.pem")
            database = database.replace(quote(str(ca_file)), f"{SECRETS}/ca.pem")
        (self.secrets / "database.url").write_text(database)
        (self.secrets / "broker.url").write_text(trial.stack.broker.url(worker))
        for path in (folder / worker).rglob("*"):
            os.chown(path, UID, UID)
            path.chmod(0o700 if path.is_dir() else 0o600)

    def environment(self) -> dict[str, str]:
        """Return what docker-compose.yml tells the worker, for the files that are there."""
        variables = {
            "STRONGROOM_DATABASE_URL_FILE": f"{SECRETS}/database.url",
            "STRONGROOM_BROKER_URL_FILE": f"{SECRETS}/broker.url",
            "STRONGROOM_ROOT_KEY_FILE": f"{SECRETS}/root.pub",
            "STRONGROOM_ROSTER_FILE": f"{SECRETS}/roster.json",
            "STRONGROOM_LOG_KEY_FILE": f"{SECRETS}/log.key",
            "STRONGROOM_REPLY_KEY_FILE": f"{SECRETS}/reply.key",
            "STRONGROOM_STATE_DIR": "/var/lib/strongroom",
        }
        if (self.secrets / "ca.pem").exists():
            variables["STRONGROOM_BROKER_CA_FILE"] = f"{SECRETS}/ca.pem"
        if (self.secrets / "sealing").exists():
            variables["STRONGROOM_SEALING_KEYS_DIR"] = f"{SECRETS}/sealing"
        return variables

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        """Run it until the end of the block, then end it by SIGTERM.

        Raises:
            RehearsalError: it does not listen in time, or ends with another exit code than 0.
        """
        volumes = {self.secrets: f"{SECRETS}:ro", self.state: "/var/lib/strongroom", self.tmp: "/tmp"}  # noqa: S108  the container's
        with self.log.open("wb") as log:
            running = subprocess.Popen(
                [
                    *("buildah", "run", "--isolation", "chroot", "--user", f"{UID}:{UID}"),
                    *(f"--env={name}={value}" for name, value in self.environment().items()),
                    *(f"--volume={source}:{target}" for source, target in volumes.items()),
                    *(name, "--", "strongroom", "worker", self.worker),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            pid = self._await_listening(running)
            yield
            os.kill(pid, SIGTERM)  # chroot isolation shares the host's process ids
            if (code := running.wait(_STOP_TIMEOUT_S)) != 0:
                raise RehearsalError(f"the {self.worker} worker ended with {code}:\n{self.log.read_text()}")
        finally:
            if running.poll() is None:
                running.terminate()
                running.wait(_STOP_TIMEOUT_S)

    def _await_listening(self, running: "subprocess.Popen[bytes]") -> int:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while running.poll() is None and time.monotonic() < deadline:
            if self.health_file.exists():
                beat = json.loads(self.health_file.read_text())
                if beat["outcome"] == "listening":
                    return int(beat["pid"])
            time.sleep(_POLL_S)
        raise RehearsalError(f"the {self.worker} worker does not listen:\n{self.log.read_text()}")


def rehearse(image: str, folder: Path) -> None:
    """Do all of it in an empty folder.

    Raises:
        RehearsalError: something of the image does not work.
        StackError: the local stack does not start.
    """
    began = time.monotonic()

    def say(step: str) -> None:
        print(f"rehearse: {step} ({time.monotonic() - began:.1f} s)", flush=True)

    with container(image) as name:
        as_user = buildah("run", "--isolation", "chroot", name, "--", "id", "-u")
        help_text = buildah("run", "--isolation", "chroot", name, "--", "strongroom", "--help")
        if as_user != str(UID) or "Usage:" not in help_text:
            raise RehearsalError(f"`strongroom --help` as uid {as_user} says: {help_text}")
    say(f"`strongroom --help` works as uid {UID}")
    trial = Trial(folder / "local", os.environ)
    try:
        trial.up(say)
        for worker in WORKERS:
            trial.stop_worker(worker)
        say("ended the workers of this host")
        with ExitStack() as stack:
            for worker in WORKERS:
                name = stack.enter_context(container(image))
                stack.enter_context(ImageWorker(worker, trial, folder).running(name))
                say(f"the {worker} worker of the image is listening")
            os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            tell(trial.folder, _ROOT / "README.md")
            say("the demo's story came out well")
        say("both workers ended with 0 after SIGTERM")
    finally:
        trial.down(purge=True)


def main() -> int:
    """Run; return the exit code."""
    if len(sys.argv) > 1 + 1:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        try:
            rehearse(sys.argv[1] if len(sys.argv) > 1 else IMAGE, Path(folder))
        except (RehearsalError, StackError) as error:
            sys.stderr.write(f"rehearse: {error}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
