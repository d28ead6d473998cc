"""Every parser of foreign bytes on its seeds, and on what becomes of them when they are cut, extended and changed.

The same targets run for longer under atheris: `make fuzz`.
"""

import ast
import base64
import gzip
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import decode
from pamqp.header import ContentHeader
from tests.fuzz import targets
from tests.fuzz.targets import TARGETS, judge

from strongroom import formats
from strongroom.errors import MalformedStatement, StrongroomError

FORMATS = Path(formats.__file__).parent
CHANGES_OF_A_SEED = 60
SEED_BYTES_MAX = 40_000

_MANY = 20_000
_ZEROS = gzip.compress(bytes(64 << 20), mtime=0)


def _nested(depth: int) -> bytes:
    """Give as many SEQUENCEs in one another, each of the right length."""
    found = b""
    for _ in range(depth):
        size = len(found)
        head = bytes([size]) if size < 0x80 else b"\x83" + size.to_bytes(3, "big")
        found = b"\x30" + head + found
    return found


def _pem(label: bytes, content: bytes) -> bytes:
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label, base64.encodebytes(content), label)


BOMBS = {
    "endless nesting": b"\x30\x80" * _MANY,
    "deep nesting": _nested(_MANY // 5),
    "octets in octets": b"\x24\x80" * _MANY + b"\x04\x01x" + bytes(2 * _MANY),
    "a length of 4 GiB": b"\x30\x84\xff\xff\xff\xff\x02\x01\x00",
    "a length of 2 to the 1,008": b"\x30\xfe" + b"\xff" * 126 + b"\x02\x01\x00",
    "a long integer": b"\x30\x83\x00\xea\x64\x02\x83\x00\xea\x60" + b"\x7f" * 60_000,
    "a long object identifier": b"\x06\x83\x00\xea\x60" + b"\xff" * 59_999 + b"\x7f",
    "64 MiB in gzip": _ZEROS,
    "nesting in PEM": _pem(b"CMS", b"\x30\x80" * _MANY),
    "gzip in PEM": _pem(b"PRIVATE KEY", _ZEROS),
    "deep lists": b"[" * _MANY,
    "deep objects": b'{"a":' * _MANY,
    "a number of many digits": b"1" * _MANY,
    "a member with such a number": b'{"format":' + b"9" * _MANY + b"}",
    "many members": b"{" + b",".join(b'"%d":0' % number for number in range(_MANY // 10)) + b"}",
    "an SSH length of 4 GiB": _pem(b"OPENSSH PRIVATE KEY", b"openssh-key-v1\0" + b"\xff" * 64),
    "an age work factor of 2 to the 63": b"age-encryption.org/v1\n-> scrypt AAAAAAAAAAAAAAAAAAAAAA 63\n",
    "one quote": b'name,text\n"' + b"x" * 40 * _MANY,
    "many line feeds": b"\n" * _MANY,
    "many commas": b"name,text\n" + b"," * _MANY,
}
BOMB_BYTES_MAX = 48 << 20  # 64 MiB of zeros would show


@pytest.fixture(autouse=True)
def _strict_amqp() -> Iterator[None]:
    """Give the AMQP driver back its own decoders, which one target replaces."""
    original, unmarshal = dict(decode.METHODS), ContentHeader.unmarshal
    yield
    decode.METHODS.update(original)
    ContentHeader.unmarshal = unmarshal  # type: ignore[method-assign]


def changes(seed: bytes, chance: random.Random) -> Iterator[bytes]:
    """Give a seed cut, extended, with flipped bits, changed lengths, and with parts left out and doubled."""
    yield from (b"", seed[:1], seed[:-1], seed + b"\0", seed + seed, seed[::-1])
    for _ in range(CHANGES_OF_A_SEED if seed else 0):
        first, second = sorted(chance.choices(range(len(seed) + 1), k=2))
        changed = bytearray(seed)
        match chance.randrange(6):
            case 0:
                changed = changed[:first]
            case 1:
                changed[first:first] = chance.randbytes(chance.randrange(1, 9))
            case 2:
                at = chance.randrange(len(seed))
                changed[at] ^= 1 << chance.randrange(8)
            case 3:
                at = chance.randrange(len(seed))
                changed[at] = chance.choice(b'\x00\x7f\x80\xff\n \\"-')
            case 4:
                del changed[first:second]
            case _:
                changed[second:second] = changed[first : min(second, first + 64)]
        yield bytes(changed)


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_reads_what_it_begins_from(name: str) -> None:
    """At least one of its seeds: what only ever refuses looks at nothing but the first bytes."""
    seeds = TARGETS[name].seeds()
    assert any(judge(name, seed) for seed in seeds)


@pytest.mark.parametrize("name", TARGETS)
def test_a_changed_seed_is_read_or_refused(name: str) -> None:
    """No parser ends in another error, whatever was done to good input; the changes are the same in every run."""
    chance = random.Random(name)  # noqa: S311 - which bits are flipped is no secret
    for seed in TARGETS[name].seeds():
        if len(seed) <= SEED_BYTES_MAX or name in ("entries", "age-payload"):
            for changed in changes(seed, chance):
                judge(name, changed)


@pytest.mark.parametrize("name", TARGETS)
def test_noise_is_read_or_refused(name: str) -> None:
    """The same for bytes that nobody meant anything by."""

    @settings(deadline=None, max_examples=40, database=None, derandomize=True)
    @given(st.binary(max_size=300) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace")))
    def feed(data: bytes) -> None:
        judge(name, data)

    feed()


@pytest.mark.parametrize("name", TARGETS)
def test_a_bomb_is_read_or_refused_in_little_memory(name: str) -> None:
    """Nested ASN.1 and JSON, lengths and numbers beyond all measure, and what grows when it is unpacked."""
    for bomb in BOMBS.values():
        tracemalloc.start()
        try:
            judge(name, bomb)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < BOMB_BYTES_MAX


def test_another_error_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal counts as one only by the errors that the contract names: neither a bug nor trouble does."""
    for error in (KeyError("x"), RecursionError(), StrongroomError("trouble")):

        def fail(_data: bytes, error: Exception = error) -> None:
            raise error

        monkeypatch.setitem(TARGETS, "failing", targets.Target(fail, list))
        with pytest.raises(type(error)):
            judge("failing", b"")

    def refuse(_data: bytes) -> None:
        raise MalformedStatement("no")

    monkeypatch.setitem(TARGETS, "failing", targets.Target(refuse, list))
    assert not judge("failing", b"")


def test_every_format_has_a_target() -> None:
    """What is added to formats/ and reads bytes is fuzzed, too: each module with a parser is imported here."""
    source = ast.parse(Path(targets.__file__).read_text(encoding="utf-8"))
    imported = {
        name
        for node in ast.walk(source)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("strongroom.formats")
        for name in (node.module or "").split(".")[2:] or [each.name for each in node.names]
    }
    not_parsers = {"__init__", "alg_id", "cryptderivekey"}
    assert {path.stem for path in FORMATS.glob("*.py")} - not_parsers <= imported
