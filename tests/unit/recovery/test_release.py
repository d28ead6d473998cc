"""Releases: what the requester is given opens in one place only, and what must not be given is not."""

import gc
from dataclasses import replace
from typing import Any

import pytest
from tests.support import authority as make
from tests.support import requests as ask
from tests.support import wrapped as given
from tests.support.keyrings import NoTransport

from strongroom.blobs import (
    BlobContext,
    OpenedMaterial,
    ReleaseContext,
    check_fingerprint,
    open_material,
    open_unwrapped,
)
from strongroom.crypto.keyring import Keyring
from strongroom.crypto.rsa import Padding, Unwrapper
from strongroom.crypto.sealing import PrivateSealingKey, Suite
from strongroom.crypto.secret import Secret
from strongroom.errors import BlobInvalid, Denied, FingerprintMismatch, KeyUnknown, PermanentError
from strongroom.fields import new_id
from strongroom.messages import HistoryEntry, Record, ReleasedRecord
from strongroom_recovery import release
from strongroom_recovery.records import StoredRecord

OTHER = "laptop-0418"
DIGEST = bytes(range(32))
MATERIAL = b"planted-canary-key-material"


class OneKey(NoTransport):
    """A keyring that holds a single sealing key."""

    def __init__(self, key: PrivateSealingKey) -> None:
        self._key = key

    @property
    def kids(self) -> frozenset[str]:
        """Its id."""
        return frozenset({self._key.kid})

    def opener(self, kid: str) -> PrivateSealingKey:
        """Give it, or raise KeyUnknown."""
        if kid != self._key.kid:
            raise KeyUnknown(f"this keyring does not hold the sealing key {kid}")
        return self._key


KEYRING: Keyring = OneKey(make.sealing_key())


def stored(record: Record | None = None, **changes: Any) -> StoredRecord:
    members: dict[str, Any] = {
        "authority": make.AUTHORITY,
        "principal": make.PRINCIPAL,
        "statement_id": new_id(),
        "issued_at": make.NOW,
        "stored_at": make.NOW,
        "log_index": 0,
        "in_force": True,
        "record": record or make.record(material=MATERIAL),
    }
    return StoredRecord(**(members | changes))


def released(record: StoredRecord, *, suite: Suite = Suite.X_WING, keyring: Keyring = KEYRING) -> ReleasedRecord:
    request = ask.request_body(recipient_suite=suite, recipient_key=ask.recipient(suite).public_key)
    body = release.build(request, DIGEST, [record], history=[], keyring=keyring, roster_version=1, now=make.NOW)
    (only,) = body.records
    return only


def opened(record: ReleasedRecord, *, digest: bytes = DIGEST, suite: Suite = Suite.X_WING) -> OpenedMaterial:
    key = ask.recipient(suite)
    context = ReleaseContext(make.AUTHORITY, digest, record.principal, record.id, key.kid)
    return open_material(record.blob, context, key)


@pytest.mark.parametrize("suite", list(Suite))
def test_the_requester_opens_the_key_and_its_fingerprint_holds(suite: Suite) -> None:
    """Re-sealed to a one-time key of either suite, the key and its salt come out as they went in."""
    record = make.record(material=MATERIAL)
    given = released(stored(record), suite=suite)
    result = opened(given, suite=suite)
    assert result.material.expose() == MATERIAL
    check_fingerprint(result, make.AUTHORITY, make.PRINCIPAL, record.id, record.fingerprint)


def test_a_released_record_says_what_its_owner_said() -> None:
    """Name, kind, description, serial number, algorithm, fingerprint and labels pass through; the blob is new."""
    record = make.record()
    given = released(stored(record, issued_at=make.NOW - 5))
    beside = {"principal", "issued_at", "blob", "unwrapped", "moved_fingerprint"}
    assert given.model_dump(exclude=beside) == record.model_dump(exclude={"kid", "suite", "blob", "supersedes"})
    assert (given.principal, given.issued_at) == (make.PRINCIPAL, make.NOW - 5)
    assert (given.unwrapped, given.moved_fingerprint) == (None, None)
    assert given.blob != record.blob


def test_a_release_answers_one_request_only() -> None:
    """The blob is bound to the request's digest: under another request it does not open."""
    with pytest.raises(BlobInvalid):
        opened(released(stored()), digest=bytes(32))


def test_the_release_names_its_request_and_carries_the_history() -> None:
    """Authority, request id, request digest, roster version, time and history stand in the body."""
    request = ask.request_body()
    history = [HistoryEntry(id=new_id(), issued_at=make.NOW, fingerprint="ab" * 32)]
    body = release.build(
        request, DIGEST, [stored()], history=history, keyring=KEYRING, roster_version=7, now=make.NOW + 3
    )
    assert (body.authority, body.request, body.request_digest) == (make.AUTHORITY, request.id, DIGEST.hex())
    assert (body.roster_version, body.released_at) == (7, make.NOW + 3)
    assert body.history == history


def refused(record: StoredRecord, error: type[PermanentError], keyring: Keyring = KEYRING) -> PermanentError:
    with pytest.raises(error, match=record.record.id) as caught:
        released(record, keyring=keyring)
    return caught.value


def test_a_blob_lifted_from_another_record_does_not_open() -> None:
    """A genuine blob of the same principal under another record id is refused."""
    refused(stored(make.record(blob=make.record(material=MATERIAL).blob)), BlobInvalid)


def test_a_blob_lifted_from_another_principal_does_not_open() -> None:
    """The victim's blob under the attacker's own name, with the same record id, is refused."""
    victims = make.record(material=MATERIAL)
    attackers = make.record(OTHER, id=victims.id, blob=victims.blob, fingerprint=victims.fingerprint)
    refused(stored(attackers, principal=OTHER), BlobInvalid)


def test_a_blob_of_another_authority_does_not_open() -> None:
    """The authority is part of the place."""
    refused(stored(authority="other.example.org"), BlobInvalid)


def test_a_blob_that_holds_another_key_than_was_signed_for_is_refused() -> None:
    """It opens in its place, and the fingerprint is of something else."""
    refused(stored(make.record(fingerprint="ab" * 32)), FingerprintMismatch)


def test_a_record_sealed_to_a_key_that_is_not_held_is_refused() -> None:
    """Without the private key there is nothing to open, and the refusal names the key."""
    refusal = refused(stored(), KeyUnknown, OneKey(make.sealing_key("another key")))
    assert make.sealing_key().kid in refusal.message


def test_a_blob_that_does_not_open_says_nothing_more() -> None:
    """Two different causes give the same words but for the record's id."""
    truncated = stored(make.record(blob=b"short"))
    lifted = stored(make.record(blob=make.record().blob))
    words = {refused(each, BlobInvalid).message.replace(each.record.id, "") for each in (truncated, lifted)}
    assert len(words) == 1


def test_a_refusal_keeps_no_key_material_alive() -> None:
    """While the error is held, neither its traceback nor its context leads to the opened key."""
    record = stored(make.record(material=MATERIAL, fingerprint="ab" * 32))
    refusal = refused(record, FingerprintMismatch)
    gc.collect()
    assert refusal.__context__ is None
    assert not [each for each in gc.get_objects() if isinstance(each, OpenedMaterial)]


def test_the_place_is_recomputed_from_what_was_signed() -> None:
    """The same record in a statement of the same owner opens; nothing but the statement's own words is used."""
    record = make.record(material=MATERIAL)
    place = BlobContext(make.AUTHORITY, make.PRINCIPAL, record.id, record.kid, record.suite)
    assert open_material(record.blob, place, make.sealing_key()).material.expose() == MATERIAL
    assert opened(released(stored(record))).material.expose() == MATERIAL


# ---- what other programs wrapped ----


class WithTransport(OneKey):
    """A keyring of a sealing key and the transport key of the vectors."""

    def transport(self, kid: str) -> Unwrapper:
        """Give it, or raise KeyUnknown."""
        if kid != given.SIMPLE.kid:
            return super().transport(kid)
        return given.transport_key()


BOTH: Keyring = WithTransport(make.sealing_key())


def unwrapping(record: StoredRecord, *, keyring: Keyring = BOTH, suite: Suite = Suite.X_WING) -> ReleasedRecord:
    request = ask.request_body(unwrap=True, recipient_suite=suite, recipient_key=ask.recipient(suite).public_key)
    body = release.build(request, DIGEST, [record], history=[], keyring=keyring, roster_version=1, now=make.NOW)
    (only,) = body.records
    return only


def wrapped_record(padding: Padding = Padding.OAEP, **changes: Any) -> StoredRecord:
    material = given.simple_blob(bytes(range(32)), padding)
    return stored(given.record(material=material, says=given.wrapping(material, padding=padding.value, **changes)))


@pytest.mark.parametrize("suite", list(Suite))
@pytest.mark.parametrize("padding", list(Padding))
def test_what_was_wrapped_comes_beside_the_bytes_as_they_were_escrowed(padding: Padding, suite: Suite) -> None:
    """Both are sealed to the one-time key; each opens under its own label, and not under the other's."""
    record = wrapped_record(padding)
    released_record = unwrapping(record, suite=suite)
    key = ask.recipient(suite)
    context = ReleaseContext(make.AUTHORITY, DIGEST, make.PRINCIPAL, released_record.id, key.kid)
    assert released_record.unwrapped is not None
    assert open_unwrapped(released_record.unwrapped, context, key).expose() == bytes(range(32))
    assert given.digest_of(opened(released_record, suite=suite).material.expose()) == record.record.wrapping.digest  # type: ignore[union-attr]
    with pytest.raises(BlobInvalid):
        open_material(released_record.unwrapped, context, key)
    with pytest.raises(BlobInvalid):
        open_unwrapped(released_record.blob, context, key)
    with pytest.raises(BlobInvalid):
        open_unwrapped(released_record.unwrapped, replace(context, request_digest=bytes(32)), key)


def test_without_being_asked_nothing_is_unwrapped() -> None:
    """The bytes go out as they came, and no transport key is used."""
    released_record = released(wrapped_record())
    assert released_record.unwrapped is None
    assert released_record.wrapping is not None


def test_what_does_not_unwrap_is_refused_in_the_same_words() -> None:
    """Another padding than was signed for, a changed ciphertext, one that was wrapped for another key."""
    other = given.simple_blob(bytes(range(32)), Padding.PKCS1)
    changed = bytearray(given.simple_blob(bytes(range(32)), Padding.OAEP))
    changed[20] ^= 1
    causes = [stored(given.record(material=material)) for material in (other, bytes(changed))]
    words = set()
    for cause in causes:
        with pytest.raises(BlobInvalid) as caught:
            unwrapping(cause)
        words.add(caught.value.message.replace(cause.record.id, ""))
    assert len(words) == 1


def test_another_digest_than_was_signed_for_is_refused() -> None:
    """Whoever lies about the digest, to get past the rule of the first escrow, gets nothing opened."""
    with pytest.raises(BlobInvalid, match="not the wrapped key that was signed for"):
        unwrapping(wrapped_record(digest="ab" * 32))


def test_a_transport_key_that_is_not_held_is_named() -> None:
    """Nothing is said about the blob: the key may come back."""
    with pytest.raises(KeyUnknown, match=given.SIMPLE.kid):
        unwrapping(wrapped_record(), keyring=KEYRING)


def test_a_device_that_does_not_open_a_padding_is_no_fault_of_the_blob() -> None:
    """The refusal is `denied`, with the record's id, and without a way to what was opened."""

    class Device:
        public_key = given.transport_key().public_key

        def unwrap(self, _ciphertext: bytes, _padding: Padding, _lengths: range) -> Secret:
            raise Denied("this padding is not opened here")

    class OnDevice(OneKey):
        def transport(self, _kid: str) -> Unwrapper:
            return Device()

    record = wrapped_record()
    with pytest.raises(Denied, match=record.record.id) as caught:
        unwrapping(record, keyring=OnDevice(make.sealing_key()))
    gc.collect()
    assert caught.value.__context__ is None
    assert not [each for each in gc.get_objects() if isinstance(each, OpenedMaterial)]
