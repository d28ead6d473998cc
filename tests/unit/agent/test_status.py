"""What a home says offline."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.support.agents import NOW, Clock, key, lost, once, rejected_by

from strongroom.errors import BrokerUnavailable, ConfigurationInvalid, ExitCode
from strongroom.testing import FakeAuthority
from strongroom_agent.agent import Agent
from strongroom_agent.enrolment import Enrolled, enrol
from strongroom_agent.home import Home
from strongroom_agent.standings import KeptStanding, Standings
from strongroom_agent.state import Evidence
from strongroom_agent.status import record_document, status
from strongroom_cli.sync import status as show_status


def test_a_fresh_home_is_enrolled_and_has_nothing_open(enrolled: Enrolled, authority: FakeAuthority) -> None:
    """Everything a script wants to know is in the document."""
    found = status(enrolled.home.path, now=NOW)
    assert found.exit_code is ExitCode.DONE
    assert found.document() == {
        "principal": "laptop-0417",
        "role": "principal",
        "authority": "vault.example",
        "key_id": enrolled.key_id,
        "enrolled": True,
        "enrolment_log_index": 0,
        "enrolled_at": NOW,
        "roster_version": 1,
        "roster_expires_at": authority.roster.body.expires_at,
        "roster_expired": False,
        "tree_sizes": {"recovery": 1},
        "statements": {"spooled": 0, "stored": 0, "rejected": 0},
        "listed": {},
        "unproven": 0,
        "needy": [],
        "records": [],
        "disclosed": [],
        "pending": [],
        "evidence": [],
    }


async def test_states_reasons_and_receipts_are_shown(agent: Agent, authority: FakeAuthority) -> None:
    """Stored with its place in the log, rejected with the authority's words, spooled with the last failure."""
    await agent.escrow([key(name="stored")])
    authority.alter = once(rejected_by(authority.escrow_reply_key))
    await agent.escrow([key(name="rejected")])
    authority.alter = lost
    await agent.escrow([key(name="spooled")], wait_seconds=0.02)
    found = status(agent._home.path, now=NOW)
    records = {str(row["name"]): row for row in map(record_document, found.records)}
    assert [records["stored"][name] for name in ("state", "log_index", "tree_size", "reason")] == [
        "stored",
        0,
        1,
        None,
    ]
    assert [records["rejected"][name] for name in ("state", "reason")] == ["rejected", "denied: no"]
    assert records["spooled"]["state"] == "spooled"
    assert str(records["spooled"]["reason"]).startswith("no_answer: ")
    assert found.document()["statements"] == {"spooled": 1, "stored": 1, "rejected": 1}


async def test_the_exit_code_says_the_worst(agent: Agent, authority: FakeAuthority) -> None:
    """Spooled is to be tried later; rejected, missing, different and forked are failures."""
    path = agent._home.path
    done = await agent.escrow([key()])
    assert status(path).exit_code is ExitCode.NOT_PROVEN
    spooled = await agent.escrow([key()], wait_seconds=0)
    assert status(path).exit_code is ExitCode.TRY_LATER
    authority.alter = rejected_by(authority.escrow_reply_key)
    await agent.sync(compare=False)
    assert status(path).exit_code is ExitCode.FAILED
    agent.requeue(spooled.records[0].statement)
    authority.alter = lambda _message, reply: reply
    authority.workers.evidence.prove()
    await agent.sync()
    assert status(path).exit_code is ExitCode.DONE
    id_ = done.records[0].facts.id
    standing = KeptStanding(record=id_, name="disk", listed="proven", listed_at=NOW, proven_at=NOW)

    def exit_code(**changes: Any) -> ExitCode:
        Standings(agent._state).keep([replace(standing, **changes)], [])
        return status(path, now=NOW).exit_code

    for what in ("missing", "mismatched", "unprovable", "stale"):
        assert exit_code(listed=what) is ExitCode.FAILED
    assert exit_code(listed="disclosed", replace_by=NOW) is ExitCode.DONE
    assert exit_code(listed="disclosed", replace_by=NOW - 1) is ExitCode.FAILED
    assert exit_code(listed="replaced", proven_at=None) is ExitCode.DONE
    assert exit_code(listed="stored", proven_at=None) is ExitCode.NOT_PROVEN
    assert exit_code() is ExitCode.DONE
    agent._state.keep_evidence(Evidence("escrow", "a", "why", "held", "new", b"reply", NOW))
    assert status(path).exit_code is ExitCode.FAILED


async def test_the_document_is_plain_json_without_secrets(agent: Agent) -> None:
    """It goes to standard output as it is."""
    await agent.escrow([key()])
    text = json.dumps(status(agent._home.path).document())
    assert "the key to everything" not in text
    assert "no-secret" not in text


def test_an_expired_roster_is_shown(enrolled: Enrolled) -> None:
    """One second after its expiry."""
    path, expires = enrolled.home.path, enrolled.roster_expires_at
    assert status(path, now=expires).document()["roster_expired"] is False
    assert status(path, now=expires + 1).document()["roster_expired"] is True


async def test_a_home_that_is_not_enrolled_yet_says_so(
    authority: FakeAuthority, tmp_path: Path, clock: Clock
) -> None:
    """In the document and in words, with the exit code for trying later; also while nothing is spooled."""
    authority.broker_down = True
    home = tmp_path / "home"
    document = authority.invitation_file("laptop-0417")
    with pytest.raises(BrokerUnavailable):
        await enrol(home, document, wait_seconds=0, connector=authority.connect, clock=clock)
    found = status(home)
    assert (found.enrolling, found.exit_code) == (True, ExitCode.TRY_LATER)
    assert found.document()["enrolled"] is False
    told = CliRunner().invoke(show_status, ["--home", str(home)])
    assert "not enrolled yet" in told.stdout
    assert told.exit_code == ExitCode.TRY_LATER


async def test_the_table_says_how_many_more_there_are_and_json_has_all(agent: Agent) -> None:
    """Nothing is left out in silence."""
    await agent.escrow([key(name=f"key {number}") for number in range(103)])
    home = str(agent._home.path)
    assert status(agent._home.path).records_total == 103
    table = CliRunner().invoke(show_status, ["--home", home]).stdout
    assert "… and 3 more" in table
    document = json.loads(CliRunner().invoke(show_status, ["--home", home, "-o", "json"]).stdout)
    assert len(document["records"]) == 103


async def test_a_table_that_shows_everything_promises_no_more(agent: Agent) -> None:
    """As for most hosts."""
    await agent.escrow([key()])
    table = CliRunner().invoke(show_status, ["--home", str(agent._home.path)]).stdout
    assert "disk" in table
    assert "more" not in table


def test_an_officers_home_has_a_status_too(officer_home: Callable[[str], Home], tmp_path: Path) -> None:
    """Without enrolment."""
    document = status(officer_home("alice").path).document()
    assert (document["role"], document["enrolled"], document["principal"]) == ("officer", False, "alice")
    assert status(tmp_path / "alice").exit_code is ExitCode.DONE


def test_a_folder_that_is_no_home_has_no_status(tmp_path: Path) -> None:
    """The error says so."""
    with pytest.raises(ConfigurationInvalid):
        status(tmp_path)


def test_status_loads_nothing_slow(enrolled: Enrolled) -> None:
    """No validation, cryptography, broker or event loop stands between a script and its answer."""
    program = f"""
import sys
from pathlib import Path
from strongroom_agent.status import status
status(Path({str(enrolled.home.path)!r})).document()
print(" ".join(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", program]
    loaded = subprocess.run(command, check=True, capture_output=True, env=env, text=True).stdout.split()
    slow = {"pydantic", "pydantic_core", "cryptography", "aio_pika", "aiormq", "asyncio", "pyrage", "structlog"}
    assert slow & set(loaded) == set()


def test_the_public_names_load_when_they_are_used() -> None:
    """`import strongroom_agent` alone costs nothing; an unknown name is an AttributeError."""
    import strongroom_agent

    assert strongroom_agent.Agent is Agent
    assert [hasattr(strongroom_agent, name) for name in strongroom_agent.__all__] == [True] * 4
    assert not hasattr(strongroom_agent, "unknown")
