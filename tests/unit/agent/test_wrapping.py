"""What a host finds out about a key that another program wrapped, before anything is sealed."""

import hashlib
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import authority as make
from tests.support import cms
from tests.support.cryptoapi import WRAPPED
from tests.support.cryptoapi import Wrapped as Vector
from tests.support.wrapping import KEY, KID, kid_of, message, packet, recipient

from strongroom.crypto.rsa import Padding, PrivateRsaKey
from strongroom.crypto.secret import Secret
from strongroom.errors import (
    BlobInvalid,
    KeyUnknown,
    LimitExceeded,
    MalformedStatement,
    PermanentError,
    StrongroomError,
    UsageError,
)
from strongroom.mandates import SealingKeyState, TransportKey
from strongroom.messages import WrappedFormat, Wrapping
from strongroom.roster import Roster
from strongroom_agent.wrapping import Identified, Wrapped, identified

SIMPLE = WrappedFormat.CRYPTOAPI_SIMPLE
OTHER = cms.private_key("other")
LONG = PrivateRsaKey.generate(3072)
AES_256 = next(each for each in WRAPPED if each.label == "AES-256-pkcs1")


def roster(*keys: PrivateRsaKey, closed: PrivateRsaKey | None = None) -> Roster:
    """Return a roster with these transport keys, the first active, and perhaps one that is closed."""
    states = [SealingKeyState.ACTIVE, *[SealingKeyState.ACCEPTED] * len(keys)]
    named = [*zip(keys, states, strict=False), *([(closed, SealingKeyState.CLOSED)] if closed else [])]
    return make.roster(
        transport_keys=[
            TransportKey(kid=kid_of(key), public_key=key.public_key.to_spki(), state=state) for key, state in named
        ]
    )


def look(material: bytes, wrapped: Wrapped, by: Roster | None = None) -> Identified:
    return identified(Secret(material), wrapped, by or roster(KEY))


@pytest.mark.parametrize("vector", WRAPPED, ids=lambda vector: vector.label)
def test_a_blob_of_another_implementation_is_found_to_be_for_the_authority(vector: Vector) -> None:
    """Key, padding and digest are what the owner signs; the algorithm is the one that the blob names."""
    found = look(vector.simple, Wrapped(SIMPLE, vector.padding))
    digest = hashlib.sha256(vector.simple[12:][::-1]).hexdigest()
    assert found.wrapping == Wrapping(format=SIMPLE, padding=vector.padding.value, kid=KID, digest=digest)
    assert found.algorithm == vector.algorithm.label


@pytest.mark.parametrize("padding", list(Padding))
@pytest.mark.parametrize("kind", [WrappedFormat.CMS, WrappedFormat.VOLUME_KEY])
def test_a_message_says_its_padding_itself(kind: WrappedFormat, padding: Padding) -> None:
    """Said or not said, it is the one of the message."""
    made = message(padding)
    material = packet(made) if kind is WrappedFormat.VOLUME_KEY else made
    found = look(material, Wrapped(kind))
    assert (found.wrapping.padding, found.wrapping.kid) == (padding.value, KID)
    assert look(material, Wrapped(kind, padding)).wrapping == found.wrapping
    assert found.algorithm


@pytest.mark.parametrize("padding", list(Padding))
def test_a_padding_that_contradicts_the_message_is_refused(padding: Padding) -> None:
    """Both ways; opened with the wrong one, it would give nothing, or something else."""
    other = next(each for each in Padding if each is not padding)
    with pytest.raises(MalformedStatement, match="padding"):
        look(message(padding), Wrapped(WrappedFormat.CMS, other))


def test_a_simple_blob_whose_padding_is_not_said_is_refused() -> None:
    """It is never guessed."""
    with pytest.raises(UsageError, match="padding") as caught:
        look(AES_256.simple, Wrapped(SIMPLE))
    assert "--padding" in (caught.value.hint or "")


# ---- for which key ----


def test_an_older_key_that_is_still_accepted_is_found_by_its_length() -> None:
    """What a program wrapped before the authority's key was changed is taken."""
    found = look(AES_256.simple, Wrapped(SIMPLE, Padding.PKCS1), roster(LONG, KEY))
    assert found.wrapping.kid == KID


def test_a_blob_that_can_be_for_two_keys_is_refused_until_its_key_is_named() -> None:
    """Said to be for the wrong one it would be kept, proven, and never be opened."""
    by = roster(OTHER, KEY)
    # A number below both moduli, whichever is the smaller.
    blob = AES_256.simple[:-1] + b"\x01"
    with pytest.raises(UsageError, match="2 transport keys") as caught:
        look(blob, Wrapped(SIMPLE, Padding.PKCS1), by)
    assert KID in caught.value.message
    assert kid_of(OTHER) in caught.value.message
    assert "--transport-key" in (caught.value.hint or "")
    assert look(blob, Wrapped(SIMPLE, Padding.PKCS1, KID), by).wrapping.kid == KID


def test_a_message_names_its_key_also_where_two_are_of_one_length() -> None:
    """By the identifier in it."""
    assert look(message(key=KEY), Wrapped(WrappedFormat.CMS), roster(OTHER, KEY)).wrapping.kid == KID


def test_a_closed_key_is_not_taken() -> None:
    """Neither found nor, when it is named, used; and the error is told from an unknown one."""
    by = roster(LONG, closed=KEY)
    with pytest.raises(BlobInvalid):
        look(AES_256.simple, Wrapped(SIMPLE, Padding.PKCS1), by)
    with pytest.raises(KeyUnknown, match="closed"):
        look(AES_256.simple, Wrapped(SIMPLE, Padding.PKCS1, KID), by)
    with pytest.raises(KeyUnknown, match="no transport key") as caught:
        look(AES_256.simple, Wrapped(SIMPLE, Padding.PKCS1, "0" * 32), by)
    assert "strongroom sync" in (caught.value.hint or "")


def test_without_any_transport_key_the_operators_are_named() -> None:
    """The host can do nothing about it."""
    with pytest.raises(KeyUnknown, match="no transport key") as caught:
        look(AES_256.simple, Wrapped(SIMPLE, Padding.PKCS1), roster())
    assert "authority add-key" in (caught.value.hint or "")


def test_a_message_to_somebody_else_is_refused() -> None:
    """With one key by its reason; with several, each by its own."""
    with pytest.raises(BlobInvalid, match="none of its recipients"):
        look(message(key=OTHER), Wrapped(WrappedFormat.CMS))
    with pytest.raises(BlobInvalid, match="none of the authority's 2 transport keys") as caught:
        look(message(key=OTHER), Wrapped(WrappedFormat.CMS), roster(KEY, LONG))
    assert KID in caught.value.message


@pytest.mark.parametrize("named", [None, KID])
def test_a_message_to_somebody_else_is_followed_by_where_ours_is(named: str | None) -> None:
    """Also where the transport key was named; that the authority has changed its keys is the other cause."""
    with pytest.raises(BlobInvalid) as caught:
        look(message(key=OTHER), Wrapped(WrappedFormat.CMS, kid=named))
    assert "for another certificate: `strongroom authority export --as certificate`" in (caught.value.hint or "")
    assert "strongroom sync" in (caught.value.hint or "")


def test_a_message_to_two_keys_of_the_authority_is_refused_and_one_to_a_stranger_beside_is_not() -> None:
    """The other copy of the content key would be another wrapped key."""
    both = cms.Message(recipients=[recipient(), recipient(key=OTHER)]).encode()
    assert look(both, Wrapped(WrappedFormat.CMS)).wrapping.kid == KID
    with pytest.raises((BlobInvalid, UsageError)):
        look(both, Wrapped(WrappedFormat.CMS), roster(KEY, OTHER))
    with pytest.raises(BlobInvalid, match="two transport keys"):
        look(both, Wrapped(WrappedFormat.CMS, kid=KID), roster(KEY, OTHER))


# ---- what is none ----


def simple(head: bytes = AES_256.simple[:12], ciphertext: bytes = AES_256.simple[12:]) -> bytes:
    return head + ciphertext


BAD = {
    "nothing": (b"", MalformedStatement, "header"),
    "truncated": (simple()[:-1], BlobInvalid, "255"),
    "extended": (simple() + b"\0", BlobInvalid, "257"),
    "its header alone": (simple()[:12], MalformedStatement, "encryptedKey"),
    "wrong endianness": (
        simple(AES_256.simple[:4] + AES_256.simple[4:8][::-1] + AES_256.simple[8:12]),
        MalformedStatement,
        "aiKeyAlg",
    ),
    "not below the modulus": (simple(ciphertext=b"\xff" * 256), BlobInvalid, "modulus"),
    "another version": (simple(b"\1\3" + AES_256.simple[2:12]), MalformedStatement, "bVersion"),
    "reserved bytes": (simple(b"\1\2\1\0" + AES_256.simple[4:12]), MalformedStatement, "reserved"),
    "for a signature key": (simple(AES_256.simple[:8] + b"\0\x24\0\0"), MalformedStatement, "algid"),
    "a key in the clear": (AES_256.plaintext, MalformedStatement, "bType"),
    "too long": (b"\1\2\0\0" * 20_000, LimitExceeded, "KEY_BLOB_BYTES_MAX"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_misshapen_blob_is_refused_by_the_name_of_the_field(name: str) -> None:
    """Before it is sealed, for the owner still has it."""
    material, kind, words = BAD[name]
    with pytest.raises(kind, match=words):
        look(material, Wrapped(SIMPLE, Padding.PKCS1))


def test_a_blob_for_a_key_of_another_length_is_refused_with_both_lengths() -> None:
    """Whichever of the two is wrong."""
    with pytest.raises(BlobInvalid, match="has 256 bytes; with this RSA key it has 384"):
        look(AES_256.simple, Wrapped(SIMPLE, Padding.PKCS1), roster(LONG))


@pytest.mark.parametrize(
    ("kind", "material"),
    [
        (WrappedFormat.CMS, AES_256.simple),
        (WrappedFormat.CMS, packet(message())),
        (WrappedFormat.VOLUME_KEY, message()),
        (WrappedFormat.VOLUME_KEY, cms.vector("volume-key-default.packet")),
        (WrappedFormat.VOLUME_KEY, cms.vector("volume-key-cleartext.packet")),
        (SIMPLE, message()),
        *[
            (WrappedFormat.CMS, cms.vector(f"refused-{name}.der"))
            for name in ("auth-enveloped", "rc2", "des", "key-agreement", "password", "signed", "oaep-label")
        ],
    ],
)
def test_what_is_said_to_be_of_another_format_is_refused(kind: WrappedFormat, material: bytes) -> None:
    """One format is never taken for another, nor what cannot be opened for what can."""
    with pytest.raises(PermanentError):
        look(material, Wrapped(kind, Padding.PKCS1 if kind is SIMPLE else None))


GOOD = {SIMPLE: AES_256.simple, WrappedFormat.CMS: message(), WrappedFormat.VOLUME_KEY: packet(message())}


@settings(deadline=None)
@given(kind=st.sampled_from(list(WrappedFormat)), data=st.data())
def test_whatever_the_bytes_are_they_are_taken_as_they_are_or_refused_by_name(
    kind: WrappedFormat, data: st.DataObject
) -> None:
    """Cut, extended or with a byte changed: nothing but our own errors comes of it."""
    good = GOOD[kind]
    position = data.draw(st.integers(0, len(good) - 1))
    changed = data.draw(
        st.sampled_from([good[:position], good + bytes(position % 7 + 1)])
        | st.integers(1, 255).map(
            lambda bit: good[:position] + bytes([good[position] ^ bit]) + good[position + 1 :]
        )
    )
    with suppress(StrongroomError):
        assert look(changed, Wrapped(kind, Padding.PKCS1 if kind is SIMPLE else None)).wrapping.kid == KID
