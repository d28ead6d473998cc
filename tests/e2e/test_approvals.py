"""Recovery by an officer with the agreement of two others, denial and revocation, by real processes."""

import secrets
from pathlib import Path

import pytest
from tests.e2e.conftest import Enrol
from tests.support.command import Command, Outcome

from strongroom.errors import ExitCode

ASKING, SECOND, THIRD = (f".local/officer-{number}" for number in (1, 2, 3))


@pytest.fixture
def escrowed(place: Path, strongroom: Command, enrolled: Enrol, request: pytest.FixtureRequest) -> Path:
    """The home of a host of this test's own whose disk key, the file `k`, is escrowed."""
    name = str(request.node.name).removeprefix("test_").replace("_", "-")[:60].strip("-")
    home = enrolled(name)
    (place / "k").write_bytes(secrets.token_bytes(32))
    strongroom("escrow", "k", "--name", "disk", home=home).done()
    return home


@pytest.fixture
def ask(strongroom: Command) -> "Ask":
    return Ask(strongroom)


class Ask:
    """An officer asks for a host's disk key; the same again takes the same request up."""

    def __init__(self, strongroom: Command) -> None:
        self._strongroom = strongroom

    def __call__(self, host: Path, *more: str) -> Outcome:
        """Ask once, and return how that ended."""
        words = ("recover", "--principal", host.name, "--name", "disk", "--reason", "ticket 4711", "--out", "k2")
        return self._strongroom(*words, "-o", "json", *more, home=ASKING)


def waiting_for(strongroom: Command, host: Path, home: Path | str) -> str:
    """Return the id of the one request that waits for keys of a host, as `home` sees it."""
    shown = strongroom("requests", "--principal", host.name, "-o", "json", home=home).done().document["requests"]
    [request] = shown
    assert (request["verified"], request["principal"], request["state"]) == (True, host.name, "pending")
    return str(request["id"])


def test_two_officers_agree_and_the_third_gets_the_key(
    place: Path, strongroom: Command, escrowed: Path, ask: Ask
) -> None:
    """Nothing before the second approval, whoever tries; afterwards the key, and the request is no longer there."""
    ask(escrowed).done(ExitCode.WAITING)
    assert not (place / "k2").exists()
    id_ = waiting_for(strongroom, escrowed, SECOND)
    refused = strongroom("approve", id_, "--yes", "-o", "json", home=ASKING).done(ExitCode.DENIED)
    assert refused.error["code"] == "approval_invalid"
    first = strongroom("approve", id_, "--yes", "--reason", "spoke with him", "-o", "json", home=SECOND).done()
    assert (first.document["approvals"], first.document["missing"]) == (1, 1)
    again = strongroom("approve", id_, "--yes", "-o", "json", home=SECOND).done()
    assert (again.document["repeated"], again.document["approvals"]) == (True, 1)
    ask(escrowed).done(ExitCode.WAITING)
    told = strongroom("requests", id_, home=THIRD).done()
    assert b"officer-2, until" in told.out
    last = strongroom("approve", id_, "--yes", "-o", "json", home=THIRD).done()
    assert (last.document["approvals"], last.document["missing"]) == (2, 0)
    ask(escrowed).done()
    assert (place / "k2").read_bytes() == (place / "k").read_bytes()
    words = ("requests", "--principal", escrowed.name, "-o", "json")
    assert strongroom(*words, home=SECOND).done().document["requests"] == []
    [released] = strongroom(*words, "--all", home=SECOND).done().document["requests"]
    assert (released["id"], released["state"], released["verified"]) == (id_, "released", True)


def test_the_owner_says_no_and_that_is_final(place: Path, strongroom: Command, escrowed: Path, ask: Ask) -> None:
    """A host sees who asks for its key and denies it; approvals are refused then, and so is the request."""
    ask(escrowed).done(ExitCode.WAITING)
    id_ = waiting_for(strongroom, escrowed, escrowed)
    strongroom("deny", id_, "--reason", "I am still here", home=escrowed).done()
    assert b"denied already" in strongroom("deny", id_, "--reason", "no", home=SECOND).done().out
    for officer in (SECOND, THIRD):
        outcome = strongroom("approve", id_, "--yes", "-o", "json", home=officer).done(ExitCode.DENIED)
        assert outcome.error["code"] == "approval_invalid"
    ask(escrowed).done(ExitCode.DENIED)
    assert not (place / "k2").exists()


def test_a_revoked_host_is_refused_and_its_keys_stay_recoverable(
    place: Path, strongroom: Command, escrowed: Path, ask: Ask
) -> None:
    """From the revocation on it stores nothing and gets nothing, and officers can still recover what it stored."""
    strongroom("revoke", escrowed.name, "--reason", "stolen", "--yes", home=SECOND).done()
    own = strongroom("recover", "--name", "disk", "--out", "own", "-o", "json", home=escrowed)
    assert own.code != ExitCode.DONE
    assert not (place / "own").exists()
    (place / "later").write_bytes(b"a later key")
    strongroom("escrow", "later", "--name", "later", home=escrowed).done(ExitCode.FAILED)
    ask(escrowed).done(ExitCode.WAITING)
    id_ = waiting_for(strongroom, escrowed, SECOND)
    for officer in (SECOND, THIRD):
        strongroom("approve", id_, "--yes", home=officer).done()
    ask(escrowed).done()
    assert (place / "k2").read_bytes() == (place / "k").read_bytes()
