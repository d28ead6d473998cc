"""An agent in a process of its own that is killed (SIGKILL) at a chosen moment.

Run as a program: HOME SOCKET ACTION MOMENT [ARGUMENT]. The socket leads to `serve`, in the test's own process, so
that the authority lives on.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tests.support.agents import Clock, key

from strongroom import private_file
from strongroom.errors import NoAnswer
from strongroom.testing import FakeAuthority, FakeLink
from strongroom_agent import spool, state
from strongroom_agent.agent import Agent
from strongroom_agent.enrolment import enrol


def die() -> None:
    """Be killed, here and now."""
    os.kill(os.getpid(), signal.SIGKILL)


# ---- the test's side ----


@asynccontextmanager
async def serve(authority: FakeAuthority, path: Path) -> AsyncIterator[None]:
    """Let processes reach an authority through a socket: one JSON request a line, one JSON answer a line."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = FakeLink(authority)
        while line := await reader.readline():
            request = json.loads(line)
            answer: str | None = None
            if "body" in request:
                await link.submit(
                    request["routing_key"],
                    bytes.fromhex(request["body"]),
                    message_id=request["message_id"],
                    headers=request["headers"],
                    expiration_seconds=None,
                )
            else:
                with suppress(NoAnswer):
                    answer = (await link.answer(request["message_id"], 1)).hex()
            writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()

    server = await asyncio.start_unix_server(converse, path, limit=2**24)
    async with server:
        yield


async def run_to_its_death(home: Path, socket: Path, action: str, moment: str, argument: str = "") -> None:
    """Start the agent and wait until it was killed; AssertionError if it ended otherwise."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.crashing_agent", str(home), str(socket), action, moment, argument),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        cwd=Path(__file__).parents[2],
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == -signal.SIGKILL, errors.decode()


# ---- the agent's side ----


class DyingLink:
    """A link to `serve` that dies around publishing and answering."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, moment: str) -> None:
        self._reader, self._writer, self._moment = reader, writer, moment

    async def _ask(self, **request: Any) -> str | None:
        self._writer.write(json.dumps(request).encode() + b"\n")
        answer: str | None = json.loads(await self._reader.readline())
        return answer

    async def submit(
        self,
        routing_key: str,
        body: bytes,
        *,
        message_id: str,
        headers: Mapping[str, int | str],
        expiration_seconds: float | None,  # noqa: ARG002 - nothing is late here
    ) -> None:
        """Publish, and die before, or when the message was handled and not yet confirmed."""
        if self._moment == "before publish":
            die()
        await self._ask(routing_key=routing_key, body=body.hex(), message_id=message_id, headers=dict(headers))
        if self._moment == "after publish":
            die()

    async def answer(self, message_id: str, timeout_seconds: float) -> bytes:  # noqa: ARG002
        """Get the answer, and die before, or when it is here and nothing was made of it."""
        if self._moment == "after confirm":
            die()
        answer = await self._ask(message_id=message_id)
        if self._moment == "after answer":
            die()
        if answer is None:
            raise NoAnswer("none")
        return bytes.fromhex(answer)


def _dying(before: Callable[..., Any] | None) -> Callable[..., Any]:
    """Do something, or nothing, and die."""

    def step(*arguments: Any, **named: Any) -> None:
        if before is not None:
            before(*arguments, **named)
        die()

    return step


def _arm(moment: str) -> None:
    """Put the death into the code; those around publishing are in the link."""
    places: dict[str, tuple[Any, str, bool]] = {
        "before spool commit": (spool.Spool, "add", False),
        "inside spool commit": (json, "dumps", False),
        "after spool commit": (spool.Spool, "add", True),
        "before marking": (spool.Spool, "settle", False),
        "inside marking": (state.State, "keep_checkpoint", False),
        "after marking": (spool.Spool, "settle", True),
        "before enrolled": (state.State, "mark_enrolled", False),
        "inside enrolled": (state.State, "mark_enrolled", True),
        "before appearing": (private_file, "_name", False),
        "after appearing": (private_file, "_name", True),
        # Where the file system has no files without a name.
        "before moving": (private_file, "_move", False),
        "after moving": (private_file, "_move", True),
    }
    for each in (moment, moment.replace("appearing", "moving")):
        if each in places:
            owner, name, done = places[each]
            setattr(owner, name, _dying(getattr(owner, name) if done else None))


async def main(home: str, socket: str, action: str, moment: str, argument: str) -> None:
    """Do what is asked, and die on the way."""

    @asynccontextmanager
    async def connector(_home: object) -> AsyncIterator[DyingLink]:
        reader, writer = await asyncio.open_unix_connection(socket, limit=2**24)
        yield DyingLink(reader, writer, moment)
        writer.close()

    clock = Clock()
    if action == "enrol":
        _arm(moment)
        await enrol(Path(home), bytes.fromhex(argument), connector=connector, clock=clock)
        return
    with Agent.open(Path(home), connector=connector, clock=clock) as agent:
        if action == "seal":
            _arm(moment)
            await agent.seal_file(Path(argument))
            return
        if action == "sync":
            await agent.escrow([key()], wait_seconds=0)
        _arm(moment)
        await (agent.sync() if action == "sync" else agent.escrow([key()]))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
