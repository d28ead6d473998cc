"""What docker-compose.yml and the Dockerfile say, as tests read it."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CONTAINER = ROOT / "deploy" / "container"
SECRETS = "/run/secrets"
BUILDER, FINAL = 1, 2
"""Stages of the Dockerfile, by position."""

Service = dict[str, Any]


def with_defaults(text: str) -> str:
    """Replace `${NAME:-default}` by the default, as compose does when NAME is not set."""
    return re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", text)


def load_compose() -> dict[str, Any]:
    """Return docker-compose.yml as it is when no variable is set."""
    document = yaml.safe_load(with_defaults((ROOT / "docker-compose.yml").read_text()))
    assert isinstance(document, dict)
    return document


def mounts(service: Service) -> dict[str, str]:
    """Return where in the container (key) which volume or host path (value) is mounted, without options."""
    found = {}
    for volume in service.get("volumes", []):
        if isinstance(volume, dict):
            found[volume["target"]] = volume["source"]
        else:
            source, target = volume.split(":")[:2]
            found[target] = source
    return found


def dockerfile_instructions() -> list[list[str]]:
    """Return the instructions of the Dockerfile as words, continued lines joined, comments dropped."""
    text = re.sub(r"(?m)^#.*\n", "", (CONTAINER / "Dockerfile").read_text()).replace("\\\n", " ")
    return [shlex.split(line) for line in text.splitlines() if line.strip()]


def copies(stage_from: int) -> Iterator[tuple[list[str], str]]:
    """Yield sources and target of each COPY from the build context, in the stages from `stage_from` on."""
    stage = -1
    for instruction, *words in dockerfile_instructions():
        stage += instruction == "FROM"
        if instruction == "COPY" and stage >= stage_from and not any(word.startswith("--from") for word in words):
            *sources, target = [word for word in words if not word.startswith("--")]
            yield sources, target
