"""The real `strongroom` command, run as a process as people and programs run it."""

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.site import PROGRAMS, SYSTEM_PATH

TIMEOUT_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended: exit code, standard output, standard error."""

    arguments: tuple[str, ...]
    code: int
    out: bytes
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document of `-o json`; it must be an object that says its schema and kind."""
        document = json.loads(self.out)
        assert document["schema"] == 1
        assert document["kind"]
        return dict(document)

    @property
    def error(self) -> dict[str, Any]:
        """The one JSON document on standard error of a command that failed with `-o json`."""
        return dict(json.loads(self.err)["error"])

    def done(self, code: int = 0) -> "Outcome":
        """Return this outcome; fail unless the command ended with this exit code and without a traceback."""
        assert self.code == code, f"{self.arguments} ended with {self.code}\n{self.out!r}\n{self.err}"
        assert "Traceback" not in self.err, self.err
        return self


@dataclass
class Command:
    """Runs `strongroom` in one folder. `outcomes` keeps everything that was ever printed.

    prefix: a command that turns itself into the one behind it, e.g. `prlimit`.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    outcomes: list[Outcome] = field(default_factory=list)

    def __call__(self, *arguments: str | Path, home: Path | str | None = None, stdin: bytes = b"") -> Outcome:
        """Run a command to its end; `home` is the folder of its state."""
        words = tuple(str(argument) for argument in arguments)
        result = subprocess.run(
            [*self.prefix, PROGRAMS / "strongroom", *words],
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            check=False,
            timeout=TIMEOUT_SECONDS,
            env={
                "PATH": f"{PROGRAMS}:{SYSTEM_PATH}",
                "LANG": "C.UTF-8",
                "HOME": str(self.folder),
                **({"STRONGROOM_HOME": str(home)} if home else {}),
                **self.environment,
            },
        )
        outcome = Outcome(words, result.returncode, result.stdout, result.stderr.decode())
        self.outcomes.append(outcome)
        return outcome
