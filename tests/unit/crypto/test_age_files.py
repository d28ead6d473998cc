"""age files that are written here open with pyrage, an implementation of its own, and the other way round."""

import io
from collections.abc import Callable

import pyrage
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyrage import x25519

from strongroom.crypto import age_passphrase, age_payload, age_recipient
from strongroom.crypto.age_payload import CHUNK_BYTES, FILE_KEY_BYTES
from strongroom.crypto.secret import Secret
from strongroom.errors import BlobInvalid, LimitExceeded, PermanentError

WORDS = "correct horse"
PASSPHRASE = Secret(WORDS.encode())
LOG_N = 2
SEALED_CHUNK = CHUNK_BYTES + 16
SIZES = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES + 5]


def content(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def sealed(plain: bytes, log_n: int = LOG_N) -> bytes:
    sink = io.BytesIO()
    age_passphrase.encrypt(io.BytesIO(plain), sink, PASSPHRASE, log_n=log_n)
    return sink.getvalue()


def split(file: bytes) -> tuple[bytes, bytes]:
    end = file.index(b"\n", file.index(b"\n--- ") + 1) + 1
    return file[:end], file[end:]


def opened(file: bytes, passphrase: Secret = PASSPHRASE) -> bytes:
    header, payload = split(file)
    sink = io.BytesIO()
    age_passphrase.decrypt(header, io.BytesIO(payload), sink, passphrase)
    return sink.getvalue()


@pytest.fixture
def _no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Working on a passphrase fails the test."""

    def work(*_arguments: object, **_options: object) -> None:
        raise AssertionError("worked on the passphrase")

    monkeypatch.setattr(age_passphrase, "Scrypt", work)


# ---- with another implementation ----


@pytest.mark.parametrize("size", SIZES)
def test_pyrage_opens_what_a_passphrase_seals(size: int) -> None:
    """At every edge of the 64 KiB that content goes in."""
    assert pyrage.passphrase.decrypt(sealed(content(size)), WORDS) == content(size)


@pytest.mark.parametrize("size", SIZES[:5])
def test_what_pyrage_seals_opens_with_the_passphrase(size: int) -> None:
    """Whatever work factor it has found good for this machine."""
    assert opened(pyrage.passphrase.encrypt(content(size), WORDS)) == content(size)


@pytest.mark.parametrize("size", SIZES)
def test_pyrage_opens_what_is_sealed_to_recipients(size: int) -> None:
    """Each recipient alone opens it, and nobody else."""
    identities = [x25519.Identity.generate() for _ in range(3)]
    sink = io.BytesIO()
    recipients = [str(each.to_public()) for each in identities[:2]]
    age_recipient.encrypt(io.BytesIO(content(size)), sink, recipients)
    for identity in identities[:2]:
        assert pyrage.decrypt(sink.getvalue(), [identity]) == content(size)
    with pytest.raises(pyrage.DecryptError):
        pyrage.decrypt(sink.getvalue(), identities[2:])


def test_every_file_has_keys_of_its_own() -> None:
    """Nothing of two files of the same content is the same but the form."""
    first, second = (split(sealed(b"content")) for _ in range(2))
    assert first[0] != second[0]
    assert first[1][:16] != second[1][:16]
    assert first[1][16:] != second[1][16:]


def test_the_work_factor_is_that_of_the_age_program() -> None:
    """2^18 unless something else is asked for."""
    assert age_passphrase.LOG_N == 18
    assert sealed(b"", 3).split(b"\n")[1].endswith(b" 3")


# ---- what does not open ----


def test_another_passphrase_opens_nothing() -> None:
    """Not even one that differs in a capital letter."""
    with pytest.raises(BlobInvalid, match="passphrase does not open"):
        opened(sealed(b"content"), Secret(b"Correct horse"))


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_header_with_any_bit_changed_opens_nothing(data: st.DataObject) -> None:
    """Each line of it is under the passphrase or under the MAC. No digit becomes much work by one bit."""
    header, payload = split(sealed(b"content"))
    at = data.draw(st.integers(0, 8 * len(header) - 1))
    changed = bytearray(header)
    changed[at // 8] ^= 1 << at % 8
    with pytest.raises(PermanentError):
        age_passphrase.decrypt(bytes(changed), io.BytesIO(payload), io.BytesIO(), PASSPHRASE)


def test_a_stanza_under_the_passphrase_is_bound_to_its_header() -> None:
    """The MAC alone says that nothing was added between the lines: a file key that opens is not enough."""
    header, payload = split(sealed(b"content"))
    mac = header.split(b"\n")[3]
    with pytest.raises(BlobInvalid, match="header was changed"):
        changed = header.replace(mac, b"--- " + age_payload.encode(bytes(32)))
        age_passphrase.decrypt(changed, io.BytesIO(payload), io.BytesIO(), PASSPHRASE)


@pytest.mark.parametrize("work", [23, 30, 62, 999])
@pytest.mark.usefixtures("_no_work")
def test_a_file_that_asks_for_too_much_work_is_refused_before_any(work: int) -> None:
    """2^30 would take a terabyte of memory: nothing is tried, and nobody asked for a passphrase."""
    header, _ = split(sealed_by_hand(b"%d" % work))
    with pytest.raises(LimitExceeded, match=rf"2\^{work} of work"):
        age_passphrase.check_header(header)
    with pytest.raises(LimitExceeded):
        age_passphrase.decrypt(header, io.BytesIO(), io.BytesIO(), PASSPHRASE)


def sealed_by_hand(
    work: bytes = b"2", salt: bytes = bytes(16), key: bytes = bytes(32), mac: bytes = bytes(32)
) -> bytes:
    lines = [b"-> scrypt " + age_payload.encode(salt) + b" " + work, age_payload.encode(key)]
    return b"\n".join([age_payload.VERSION, *lines, b"--- " + age_payload.encode(mac)]) + b"\n"


GOOD = sealed_by_hand()
_KEY_LINE = GOOD.split(b"\n")[2]


@pytest.mark.parametrize(
    "header",
    [
        sealed_by_hand(b"0"),
        sealed_by_hand(b"02"),
        sealed_by_hand(b"+2"),
        sealed_by_hand(b"1000"),
        sealed_by_hand(b""),
        sealed_by_hand("٣".encode()),
        sealed_by_hand(salt=bytes(15)),
        sealed_by_hand(key=bytes(33)),
        sealed_by_hand(mac=bytes(31)),
        GOOD.replace(_KEY_LINE, _KEY_LINE + b"="),
        GOOD.replace(_KEY_LINE, _KEY_LINE[:-1] + b"B"),
        GOOD.replace(_KEY_LINE, b"!" + _KEY_LINE[1:]),
        GOOD.replace(b" 2\n", b" 2 2\n"),
        GOOD.replace(b"\n--- ", b"\n-> X25519 AAAA\nAAAA\n--- "),
        GOOD.replace(b"\n--- ", b"\n-> scrypt AAAA 2\nAAAA\n--- "),
        GOOD.replace(b"-> scrypt", b"-> X25519 AAAA\nAAAA\n-> scrypt"),
        GOOD.replace(b"\n--- ", b"\n---"),
        GOOD.replace(b"/v1", b"/v2"),
        GOOD + b"\n",
        GOOD[:-1],
        b"",
    ],
)
@pytest.mark.usefixtures("_no_work")
def test_a_misshapen_header_is_refused_before_any_work(header: bytes) -> None:
    """Neither numbers nor base64 are written in two ways, and beside a passphrase's stanza there is no other."""
    with pytest.raises(BlobInvalid):
        age_passphrase.check_header(header)


def test_the_first_stanza_says_whether_it_is_for_a_passphrase() -> None:
    """Nothing else is looked at."""
    assert age_passphrase.is_for_passphrase(GOOD)
    assert not age_passphrase.is_for_passphrase(GOOD.replace(b"scrypt", b"X25519"))
    assert not age_passphrase.is_for_passphrase(b"")


Damage = Callable[[bytes], bytes]
WHOLE = content(2 * CHUNK_BYTES + 5)
DAMAGES: dict[str, Damage] = {
    "flipped": lambda payload: payload[:-1] + bytes([payload[-1] ^ 1]),
    "cut within": lambda payload: payload[:-1],
    "cut between": lambda payload: payload[: 16 + 2 * SEALED_CHUNK],
    "cut to one": lambda payload: payload[: 16 + SEALED_CHUNK],
    "nonce alone": lambda payload: payload[:16],
    "half a nonce": lambda payload: payload[:8],
    "nothing": lambda _payload: b"",
    "extended": lambda payload: payload + b"\0",
    "doubled end": lambda payload: payload + payload[16 + 2 * SEALED_CHUNK :],
    "swapped": lambda payload: (
        payload[:16] + payload[16 + SEALED_CHUNK : 16 + 2 * SEALED_CHUNK] + payload[16 : 16 + SEALED_CHUNK]
    ),
    "other nonce": lambda payload: bytes(16) + payload[16:],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_content_does_not_open(damage: Damage) -> None:
    """And of what was written before the damage, every byte was right."""
    header, payload = split(sealed(WHOLE))
    sink = io.BytesIO()
    with pytest.raises(BlobInvalid, match="damaged or cut short"):
        age_passphrase.decrypt(header, io.BytesIO(damage(payload)), sink, PASSPHRASE)
    assert WHOLE.startswith(sink.getvalue())


def test_an_empty_last_chunk_is_refused() -> None:
    """Content has one form: only an empty file has a chunk without bytes."""
    file_key = Secret(bytes(FILE_KEY_BYTES))
    sink = io.BytesIO()
    age_payload.encrypt(io.BytesIO(content(CHUNK_BYTES)), sink, file_key, [b"-> x\nAAAA"])
    header, payload = split(sink.getvalue())
    cipher = age_payload._cipher(file_key, payload[:16])
    chunks = [(content(CHUNK_BYTES), b"\0"), (b"", b"\1")]
    forged = b"".join(
        cipher.encrypt(number.to_bytes(11) + last, chunk, None) for number, (chunk, last) in enumerate(chunks)
    )
    with pytest.raises(BlobInvalid):
        age_payload.decrypt(header, io.BytesIO(payload[:16] + forged), io.BytesIO(), file_key)


def test_a_passphrase_that_takes_more_memory_than_there_is_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """4 GiB at the most."""

    def work(*_arguments: object, **_options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(age_passphrase, "Scrypt", work)
    with pytest.raises(LimitExceeded, match="4096 MiB"):
        age_passphrase.decrypt(sealed_by_hand(b"22"), io.BytesIO(), io.BytesIO(), PASSPHRASE)
