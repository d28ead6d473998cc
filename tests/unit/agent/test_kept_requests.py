"""Requests kept in a home: what is on disk, and what must not be taken for one."""

from pathlib import Path

import pytest
from tests.support.agents import NOW

from strongroom.crypto.key_file import write_sealing_key
from strongroom.crypto.sealing import PrivateSealingKey, Suite
from strongroom.crypto.signing import SigningKey
from strongroom.errors import ConfigurationInvalid, KeyFileInvalid, StateCorrupt, StrongroomError
from strongroom.fields import Capacity, new_id
from strongroom.messages import Destination, Request
from strongroom.statements import Statement
from strongroom_agent import kept_requests
from strongroom_agent.home import Home, write_atomically
from strongroom_agent.identity import create_officer_home, signing_key
from strongroom_agent.kept_requests import KeptRequests, Selection, SignedRequest

SELECTION = Selection("laptop-0417", "disk", None)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return create_officer_home(tmp_path / "alice", "alice", passphrase=None)


@pytest.fixture
def kept(home: Home) -> KeptRequests:
    return KeptRequests(home, None)


def request(home: Home, *, key: SigningKey | None = None, **changes: object) -> SignedRequest:
    """Sign a request for the disk key of laptop-0417 that lives 9 s; members as given."""
    one_time_key = PrivateSealingKey.generate(Suite.X_WING)
    body = Request(
        authority="vault.example",
        id=new_id(),
        issued_at=NOW,
        expires_at=NOW + 9,
        requester="alice",
        requester_kind=Capacity.OFFICER,
        principal="laptop-0417",
        records=None,
        name="disk",
        reason="why",
        recipient_suite=one_time_key.suite,
        recipient_key=one_time_key.public_key,
    ).model_copy(update=changes)
    statement = Statement.sign(Request.TYPE, body.to_bytes(), key or signing_key(home, None))
    return SignedRequest(body, statement, one_time_key)


def names(home: Home) -> set[str]:
    return {path.name for path in (home.path / "requests").iterdir()}


def test_a_kept_request_comes_back_as_it_was_signed(home: Home, kept: KeptRequests) -> None:
    """The same bytes and the same key, also for another process."""
    signed = request(home)
    kept.keep(signed)
    found = KeptRequests(Home.open(home.path), None).find(SELECTION)
    assert found is not None
    assert (found.request, found.statement) == (signed.request, signed.statement)
    assert found.one_time_key.private_bytes() == signed.one_time_key.private_bytes()


def test_a_request_that_unwraps_is_another_one_than_the_same_without(home: Home, kept: KeptRequests) -> None:
    """Neither is found, nor dropped, in the place of the other."""
    plain, opening = request(home), request(home, unwrap=True)
    for each in (plain, opening):
        kept.keep(each)
    unwrapping = Selection("laptop-0417", "disk", None, unwrap=True)
    for selection, signed in ((SELECTION, plain), (unwrapping, opening)):
        found = kept.find(selection)
        assert found is not None
        assert found.request.id == signed.request.id
    kept.discard_others(unwrapping, opening.request.id)
    assert kept.find(SELECTION) is not None


def test_a_request_that_moves_keys_elsewhere_is_nobodys_selection() -> None:
    """Its answer opens with no key of this home."""
    ids = [new_id()]
    moving = Request(
        authority="vault.example",
        id=new_id(),
        issued_at=NOW,
        expires_at=NOW + 9,
        requester="alice",
        requester_kind=Capacity.OFFICER,
        principal="laptop-0417",
        records=ids,
        name=None,
        reason="why",
        recipient_suite=Suite.X_WING,
        recipient_key=PrivateSealingKey.generate(Suite.X_WING).public_key,
        destination=Destination(authority="other.example", principal="laptop-0417"),
    )
    selection = Selection("laptop-0417", None, ids)
    assert not selection.is_of(moving)
    assert selection.is_of(moving.model_copy(update={"destination": None}))


def test_a_request_never_stands_in_the_folder_without_its_key(
    home: Home, kept: KeptRequests, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever the power goes: the key comes first and goes last."""
    signed = request(home)
    seen: list[set[str]] = []
    unlink = Path.unlink

    def writing(path: Path, content: bytes) -> None:
        seen.append({each.suffix for each in path.parent.iterdir()})
        write_atomically(path, content)

    def unlinking(path: Path, *, missing_ok: bool = False) -> None:
        unlink(path, missing_ok=missing_ok)
        if not path.name.startswith("."):
            seen.append({each.suffix for each in path.parent.iterdir()})

    monkeypatch.setattr(kept_requests, "write_atomically", writing)
    monkeypatch.setattr(Path, "unlink", unlinking)
    kept.keep(signed)
    kept.discard(signed.request.id)
    assert seen == [{".key"}, {".key"}, set()]


def test_nothing_is_found_where_nothing_was_kept(home: Home, kept: KeptRequests) -> None:
    """And no folder is made for it."""
    kept.sweep(NOW)
    kept.discard(new_id())
    assert kept.find(SELECTION) is None
    assert not (home.path / "requests").exists()


def test_the_newest_of_several_is_found(home: Home, kept: KeptRequests) -> None:
    """By their ids, which rise with time."""
    signed = [request(home) for _ in range(3)]
    for each in (signed[1], signed[2], signed[0]):
        kept.keep(each)
    found = kept.find(SELECTION)
    assert found is not None
    assert found.request.id == max(each.request.id for each in signed)


@pytest.mark.parametrize(
    "selection",
    [
        Selection("laptop-0418", "disk", None),
        Selection("laptop-0417", "disk 2", None),
        Selection("laptop-0417", None, ["01a2050e-1a43-74ad-a430-3b0ef9071f2e"]),
    ],
)
def test_a_request_for_something_else_is_not_found(home: Home, kept: KeptRequests, selection: Selection) -> None:
    """Another principal, another name, a record."""
    kept.keep(request(home))
    assert kept.find(selection) is None


def test_expired_requests_are_swept(home: Home, kept: KeptRequests) -> None:
    """With their keys; the second of the expiry itself still counts."""
    kept.keep(request(home))
    kept.sweep(NOW + 9)
    assert len(names(home)) == 2
    kept.sweep(NOW + 10)
    assert names(home) == set()


def test_what_a_crash_left_half_written_is_swept(home: Home, kept: KeptRequests) -> None:
    """A key without its request, and a request that was not renamed yet; whole ones stay."""
    signed = request(home)
    kept.keep(signed)
    folder = home.path / "requests"
    write_sealing_key(folder / f"{new_id()}.key", PrivateSealingKey.generate(Suite.X_WING), None)
    (folder / f"{new_id()}.json.partial").write_bytes(b"{")
    kept.sweep(NOW)
    assert names(home) == {f"{signed.request.id}.json", f"{signed.request.id}.key"}


def test_others_for_the_same_keys_are_discarded(home: Home, kept: KeptRequests) -> None:
    """And only these."""
    old, new, other = request(home), request(home), request(home, name="other")
    for each in (old, new, other):
        kept.keep(each)
    kept.discard_others(SELECTION, new.request.id)
    assert {name.partition(".")[0] for name in names(home)} == {new.request.id, other.request.id}


@pytest.mark.parametrize("harm", ["no envelope", "another key signed it", "another name", "another requester"])
def test_a_file_that_is_no_request_of_this_home_is_reported(home: Home, kept: KeptRequests, harm: str) -> None:
    """By its path, when it may be the one wanted; it is not removed, and hinders no other request."""
    changes = {"requester": "mallory"} if harm == "another requester" else {}
    signed = request(home, key=SigningKey.generate() if harm == "another key signed it" else None, **changes)
    kept.keep(signed)
    path = home.path / "requests" / f"{signed.request.id}.json"
    if harm == "no envelope":
        path.write_bytes(b"{}")
    if harm == "another name":
        path = path.rename(path.with_name(f"{new_id()}.json"))
    with pytest.raises(StateCorrupt, match=path.stem):
        kept.find(SELECTION)
    kept.sweep(NOW + 10)
    assert path.exists()
    other = request(home)
    kept.keep(other)
    found = kept.find(SELECTION)
    assert found is not None
    assert found.request.id == other.request.id


def test_a_request_whose_key_is_lost_is_reported(home: Home, kept: KeptRequests) -> None:
    """A release to it could not be opened."""
    signed = request(home)
    kept.keep(signed)
    (home.path / "requests" / f"{signed.request.id}.key").unlink()
    with pytest.raises(KeyFileInvalid, match=signed.request.id):
        kept.find(SELECTION)


def test_a_key_that_is_not_the_one_asked_with_is_reported(home: Home, kept: KeptRequests) -> None:
    """A release would not open with it."""
    signed = request(home)
    kept.keep(signed)
    path = home.path / "requests" / f"{signed.request.id}.key"
    path.unlink()
    write_sealing_key(path, PrivateSealingKey.generate(Suite.X_WING), None)
    with pytest.raises(StateCorrupt, match="one-time key"):
        kept.find(SELECTION)


def test_a_folder_that_others_may_use_is_refused(home: Home, kept: KeptRequests) -> None:
    """Reading, writing and sweeping."""
    kept.keep(request(home))
    (home.path / "requests").chmod(0o750)
    with pytest.raises(ConfigurationInvalid, match="0750"):
        kept.find(SELECTION)
    with pytest.raises(ConfigurationInvalid, match="0750"):
        kept.sweep(NOW)
    with pytest.raises(ConfigurationInvalid, match="0750"):
        kept.keep(request(home))


def test_a_place_that_cannot_be_written_is_told_in_our_words(home: Home, kept: KeptRequests) -> None:
    """A file in the place of the folder."""
    (home.path / "requests").touch(mode=0o600)
    with pytest.raises(StrongroomError):
        kept.keep(request(home))


def test_no_repr_shows_the_one_time_key(home: Home) -> None:
    """It goes into a file and nowhere else."""
    signed = request(home)
    assert signed.one_time_key.private_bytes().expose().hex() not in repr(signed)
    assert repr(signed.one_time_key.private_bytes().expose()) not in repr(signed)
