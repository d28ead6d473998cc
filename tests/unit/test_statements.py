"""Statements: the DSSE envelope and the JSON rules against SPEC section 1, the published vector, and tampering."""

import json
from base64 import b64encode
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.authority import signing_key

from strongroom.crypto.signing import key_id
from strongroom.errors import LimitExceeded, MalformedStatement, PermanentError, SignatureInvalid
from strongroom.limits import BODY_BYTES_MAX, ENVELOPE_BYTES_MAX, INTEGER_MAX, SIGNATURES_MAX
from strongroom.statements import (
    Signature,
    Statement,
    canonical_json,
    decode_base64,
    pae,
    parse_envelope,
    parse_json,
    statement_from_document,
)

VECTOR: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "dsse" / "pae.json").read_text(encoding="utf-8")
)
# A busy machine is no failure.
BRIEF = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])

TYPE = "application/vnd.example.v1+json"
KEY = signing_key("signer")
STATEMENT = Statement.sign(TYPE, b'{"some":"body"}', KEY)
DOCUMENT = STATEMENT.document()
ENVELOPE = STATEMENT.envelope()
SIGNATURE: dict[str, str] = {"keyid": KEY.key_id, "sig": b64encode(STATEMENT.signatures[0].value).decode()}


def envelope(**members: object) -> bytes:
    """The good envelope with some members replaced; `...` leaves one out."""
    changed = DOCUMENT | members
    return json.dumps({name: value for name, value in changed.items() if value is not ...}).encode()


def with_signature(**members: object) -> bytes:
    """The good envelope with some members of its one signature replaced; `...` leaves one out."""
    changed = SIGNATURE | members
    return envelope(signatures=[{name: value for name, value in changed.items() if value is not ...}])


# ---- pre-authentication encoding and digest ----


def test_pae_is_that_of_the_published_example() -> None:
    """The DSSE specification's example gives exactly the bytes that it prints."""
    assert pae(VECTOR["payload_type"], VECTOR["body"].encode()) == VECTOR["pae"].encode()


def test_the_published_signature_holds_over_our_pae() -> None:
    """The example's ECDSA signature, made by somebody else's program, verifies over the bytes that we make."""
    key = ec.EllipticCurvePublicNumbers(int(VECTOR["key"]["x"]), int(VECTOR["key"]["y"]), ec.SECP256R1())
    raw = decode_base64(VECTOR["envelope"]["signatures"][0]["sig"], "sig")
    signature = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    body = decode_base64(VECTOR["envelope"]["payload"], "payload")
    key.public_key().verify(signature, pae(VECTOR["envelope"]["payloadType"], body), ec.ECDSA(SHA256()))


def test_the_published_envelope_is_refused_for_want_of_a_keyid() -> None:
    """DSSE lets the key id be absent; SPEC 1.3 does not, and says which member is at fault."""
    with pytest.raises(MalformedStatement, match="signatures: the members of each"):
        statement_from_document(VECTOR["envelope"])


def test_pae_counts_bytes() -> None:
    """Lengths are of the encoded type and the body in bytes, so that no two pairs give the same encoding."""
    assert pae("ü", "ü€".encode()) == b"DSSEv1 2 \xc3\xbc 5 \xc3\xbc\xe2\x82\xac"
    assert pae("a 1 b", b"c") != pae("a", b"b 1 c")


def test_the_digest_is_that_of_the_pae() -> None:
    """Type and body are both under the digest (SPEC 1.2)."""
    assert STATEMENT.digest == sha256(pae(STATEMENT.type, STATEMENT.body)).digest()
    assert Statement(TYPE + "x", STATEMENT.body, ()).digest != STATEMENT.digest
    assert Statement(TYPE, STATEMENT.body + b" ", ()).digest != STATEMENT.digest


def test_signatures_leave_the_digest_alone() -> None:
    """A second signature is added without changing type, body, digest or the first signature."""
    countersigned = STATEMENT.countersigned(signing_key("second"))
    assert countersigned.digest == STATEMENT.digest
    assert countersigned.signatures[:1] == STATEMENT.signatures
    assert (countersigned.type, countersigned.body) == (STATEMENT.type, STATEMENT.body)


# ---- signing and verifying ----


def test_a_signature_verifies_under_its_key_only() -> None:
    """Each signer's key verifies, whichever place its signature has; a stranger's does not."""
    both = STATEMENT.countersigned(signing_key("second"))
    both.verify_signature(KEY.public_key, KEY.key_id)
    both.verify_signature(signing_key("second").public_key, signing_key("second").key_id)
    with pytest.raises(SignatureInvalid, match=signing_key("stranger").key_id):
        both.verify_signature(signing_key("stranger").public_key, signing_key("stranger").key_id)


def test_a_key_id_does_not_vouch_for_a_key() -> None:
    """A stranger who writes the signer's key id beside his signature is not the signer (SPEC 1.3)."""
    forged = Statement.sign(TYPE, STATEMENT.body, signing_key("stranger"))
    relabelled = Statement(TYPE, STATEMENT.body, (Signature(KEY.key_id, forged.signatures[0].value),))
    with pytest.raises(SignatureInvalid, match="does not hold"):
        relabelled.verify_signature(KEY.public_key, KEY.key_id)


def test_a_signature_under_another_key_id_is_not_tried() -> None:
    """A good signature that names another key counts as absent: the key id selects the key to try."""
    relabelled = Statement(TYPE, STATEMENT.body, (Signature("0" * 32, STATEMENT.signatures[0].value),))
    with pytest.raises(SignatureInvalid, match="none by key"):
        relabelled.verify_signature(KEY.public_key, KEY.key_id)


@pytest.mark.parametrize("places", [(0, 1), (1, 0)])
def test_a_wrong_signature_beside_a_good_one_does_no_harm(places: tuple[int, int]) -> None:
    """Every signature under the key id is tried, so nobody spoils a statement by adding one."""
    pair = (STATEMENT.signatures[0], Signature(KEY.key_id, bytes(64)))
    statement = Statement(TYPE, STATEMENT.body, (pair[places[0]], pair[places[1]]))
    statement.verify_signature(KEY.public_key, KEY.key_id)


def test_two_wrong_signatures_do_not_add_up() -> None:
    """When none of the signatures under the key id holds, verification fails."""
    wrong = Signature(KEY.key_id, bytes(64))
    with pytest.raises(SignatureInvalid, match="does not hold"):
        Statement(TYPE, STATEMENT.body, (wrong, wrong)).verify_signature(KEY.public_key, KEY.key_id)


@pytest.mark.parametrize(
    ("payload_type", "body"),
    [(TYPE, b'{"some":"bodY"}'), (TYPE, b""), (TYPE.replace("v1", "v2"), STATEMENT.body)],
    ids=["body changed", "body emptied", "type changed"],
)
def test_a_signature_is_over_type_and_body(payload_type: str, body: bytes) -> None:
    """A signature moved to another body, or to the same body under another type, does not verify."""
    moved = Statement(payload_type, body, STATEMENT.signatures)
    with pytest.raises(SignatureInvalid, match="does not hold"):
        moved.verify_signature(KEY.public_key, KEY.key_id)


def test_an_unsigned_statement_verifies_under_no_key() -> None:
    """No signature is not a good signature."""
    with pytest.raises(SignatureInvalid, match="none by key"):
        Statement.sign(TYPE, b"{}").verify_signature(KEY.public_key, KEY.key_id)


# ---- envelopes that are refused ----

GOOD = SIGNATURE["sig"]
SPARE_BITS = GOOD[:-3] + chr(ord(GOOD[-3]) + 1) + "=="  # 64 bytes leave 4 unused bits in the last character
REFUSED: dict[str, tuple[bytes, type[PermanentError], str]] = {
    "no signature": (envelope(signatures=[]), SignatureInvalid, "signatures: there must be at least one"),
    "signatures missing": (envelope(signatures=...), MalformedStatement, "envelope: its members"),
    "payload missing": (envelope(payload=...), MalformedStatement, "envelope: its members"),
    "type missing": (envelope(payloadType=...), MalformedStatement, "envelope: its members"),
    "unknown member": (envelope(extra=1), MalformedStatement, "envelope: its members"),
    "unknown member in a signature": (with_signature(extra=1), MalformedStatement, "signatures: the members"),
    "keyid missing": (with_signature(keyid=...), MalformedStatement, "signatures: the members"),
    "sig missing": (with_signature(sig=...), MalformedStatement, "signatures: the members"),
    "repeated member": (
        ENVELOPE.replace(b'"payloadType":', b'"payloadType":"a/b","payloadType":'),
        MalformedStatement,
        "repeated",
    ),
    "repeated member in a signature": (
        ENVELOPE.replace(b'"keyid":', b'"keyid":"' + b"0" * 32 + b'","keyid":'),
        MalformedStatement,
        "repeated",
    ),
    "repeated member by escape": (
        ENVELOPE.replace(b'"payload":', b'"p\\u0061yload":"","payload":'),
        MalformedStatement,
        "repeated",
    ),
    "second signature misshapen": (
        envelope(signatures=[SIGNATURE, SIGNATURE | {"extra": 1}]),
        MalformedStatement,
        "signatures: the members",
    ),
    "payload null": (envelope(payload=None), MalformedStatement, "payload: must be base64 text"),
    "payload a number": (envelope(payload=1), MalformedStatement, "payload: must be base64 text"),
    "payload an object": (envelope(payload={}), MalformedStatement, "payload: must be base64 text"),
    "type null": (envelope(payloadType=None), MalformedStatement, "payloadType"),
    "type a list": (envelope(payloadType=[TYPE]), MalformedStatement, "payloadType"),
    "type beyond ASCII": (envelope(payloadType="application/ü"), MalformedStatement, "payloadType"),
    "type with a control character": (envelope(payloadType="a/b\n"), MalformedStatement, "payloadType"),
    "type with NUL": (envelope(payloadType="a/b\0"), MalformedStatement, "payloadType"),
    "type with a lone surrogate": (envelope(payloadType="a/\ud800"), MalformedStatement, "payloadType"),
    "type of 129 characters": (envelope(payloadType="a" * 129), MalformedStatement, "payloadType.*128"),
    "signatures null": (envelope(signatures=None), MalformedStatement, "signatures: must be a list"),
    "signatures an object": (envelope(signatures=SIGNATURE), MalformedStatement, "signatures: must be a list"),
    "signatures empty text": (envelope(signatures=""), MalformedStatement, "signatures: must be a list"),
    "signature a list": (envelope(signatures=[["keyid", "sig"]]), MalformedStatement, "signatures: the members"),
    "signature null": (envelope(signatures=[None]), MalformedStatement, "signatures: the members"),
    "keyid a number": (with_signature(keyid=1), MalformedStatement, "signatures.keyid"),
    "keyid null": (with_signature(keyid=None), MalformedStatement, "signatures.keyid"),
    "keyid empty": (with_signature(keyid=""), MalformedStatement, "signatures.keyid"),
    "keyid of 31 digits": (with_signature(keyid="0" * 31), MalformedStatement, "signatures.keyid"),
    "keyid of 33 digits": (with_signature(keyid="0" * 33), MalformedStatement, "signatures.keyid"),
    "keyid upper case": (with_signature(keyid="A" * 32), MalformedStatement, "signatures.keyid"),
    "keyid with a line break": (with_signature(keyid="0" * 32 + "\n"), MalformedStatement, "signatures.keyid"),
    "keyid with a lone surrogate": (with_signature(keyid="\ud800" * 32), MalformedStatement, "signatures.keyid"),
    "sig null": (with_signature(sig=None), MalformedStatement, "signatures.sig"),
    "sig empty": (with_signature(sig=""), MalformedStatement, "signatures.sig: 0 bytes, must be 64"),
    "sig of 63 bytes": (with_signature(sig=b64encode(bytes(63)).decode()), MalformedStatement, "63 bytes"),
    "sig of 65 bytes": (with_signature(sig=b64encode(bytes(65)).decode()), MalformedStatement, "65 bytes"),
    "sig with spare bits set": (with_signature(sig=SPARE_BITS), MalformedStatement, "signatures.sig.*canonical"),
    "empty input": (b"", MalformedStatement, "envelope: is not JSON"),
    "white space": (b" \n", MalformedStatement, "envelope: is not JSON"),
    "null": (b"null", MalformedStatement, "envelope: its members"),
    "a list": (b"[" + ENVELOPE + b"]", MalformedStatement, "envelope: its members"),
    "text": (b'"payload"', MalformedStatement, "envelope: its members"),
    "a number": (b"1", MalformedStatement, "envelope: its members"),
    "two documents": (ENVELOPE + ENVELOPE, MalformedStatement, "envelope: is not JSON"),
    "cut short": (ENVELOPE[:-1], MalformedStatement, "envelope: is not JSON"),
    "byte order mark": (b"\xef\xbb\xbf" + ENVELOPE, MalformedStatement, "envelope: is not JSON"),
    "UTF-16": (ENVELOPE.decode().encode("utf-16"), MalformedStatement, "envelope: is not UTF-8"),
    "compressed": (b"\x1f\x8b\x08\x00" + ENVELOPE, MalformedStatement, "envelope: is not UTF-8"),
}


@pytest.mark.parametrize(("data", "error", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_a_misshapen_envelope_is_refused(data: bytes, error: type[PermanentError], says: str) -> None:
    """SPEC 1.3 lets a reader accept nothing but the exact members, once each, of the exact types."""
    with pytest.raises(error, match=says):
        parse_envelope(data)


def test_the_good_envelope_is_accepted() -> None:
    """The envelope that all refusals above are variations of is read as it was written."""
    assert parse_envelope(ENVELOPE) == STATEMENT
    assert parse_envelope(b" " + envelope() + b"\n") == STATEMENT  # a reader does not rely on white space
    assert statement_from_document(DOCUMENT) == STATEMENT


def test_a_type_of_128_characters_is_accepted() -> None:
    """The edge of what a payload type may be long."""
    assert parse_envelope(envelope(payloadType="a" * 128)).type == "a" * 128


NOT_CANONICAL = {
    "spare bits, one byte": "YR==",
    "spare bits, two bytes": "YWJ=",
    "padding missing": "YQ",
    "half the padding": "YQ=",
    "padding too long": "YQ===",
    "padding alone": "====",
    "padding first": "=YQ=",
    "padding within": "YQ==YWJj",
    "text after padding": "YQ==YQ",
    "one character": "Y",
    "line break at the end": "YWJj\n",
    "line break within": "YW\nJj",
    "carriage return": "YWJj\r\n",
    "space within": "YW Jj",
    "space first": " YWJj",
    "URL-safe alphabet": "_-8=",
    "other character": "YW!j",
    "NUL": "YWJj\0",
    "beyond ASCII": "YWJü",
    "lone surrogate": "YWJ\ud800",
    "full-width letter": "\uff39WJj",
}


@pytest.mark.parametrize("text", NOT_CANONICAL.values(), ids=NOT_CANONICAL.keys())
def test_base64_that_is_not_canonical_is_refused(text: str) -> None:
    """One byte string has one spelling (SPEC preamble), in the payload as in a signature."""
    with pytest.raises(MalformedStatement, match=r"^payload: is not"):
        parse_envelope(envelope(payload=text))
    with pytest.raises(MalformedStatement, match=r"^signatures.sig: is not"):
        parse_envelope(with_signature(sig=text))


@given(st.text(alphabet="YWJjQ=+/AZ09_-\n ", max_size=12))
@BRIEF
def test_what_base64_is_accepted_encodes_back_to_itself(text: str) -> None:
    """Whatever text is accepted is the one canonical spelling of the bytes it stands for."""
    try:
        decoded = decode_base64(text, "field")
    except MalformedStatement:
        return
    assert b64encode(decoded).decode() == text


# ---- limits ----


def test_16_signatures_are_read_and_17_are_not() -> None:
    """SIGNATURES_MAX at its edge and one beyond, read and written."""
    keys = [signing_key(f"signer {number}") for number in range(SIGNATURES_MAX)]
    full = Statement.sign(TYPE, b"{}", *keys)
    assert len(parse_envelope(full.envelope()).signatures) == SIGNATURES_MAX == 16
    with pytest.raises(LimitExceeded, match="signatures: the limit is 16"):
        full.countersigned(KEY)
    seventeen = Statement(TYPE, b"{}", (*full.signatures, STATEMENT.signatures[0]))
    with pytest.raises(LimitExceeded, match="signatures: 17, the limit is 16"):
        parse_envelope(seventeen.envelope())


def test_a_body_of_one_mebibyte_is_taken_and_no_byte_more() -> None:
    """BODY_BYTES_MAX at its edge and one beyond, read and written; 16 signatures fit around the fullest body."""
    keys = [signing_key(f"signer {number}") for number in range(SIGNATURES_MAX)]
    full = Statement.sign("a" * 128, b"b" * BODY_BYTES_MAX, *keys)
    assert parse_envelope(full.envelope()) == full
    beyond = b"b" * (BODY_BYTES_MAX + 1)
    with pytest.raises(LimitExceeded, match="body: 1048577 bytes, the limit is 1048576 bytes"):
        Statement.sign(TYPE, beyond, KEY)
    with pytest.raises(LimitExceeded, match="body: 1048577 bytes, the limit is 1048576 bytes"):
        parse_envelope(Statement(TYPE, beyond, STATEMENT.signatures).envelope())


def test_an_envelope_is_measured_before_it_is_read() -> None:
    """ENVELOPE_BYTES_MAX at its edge and one beyond, whatever the bytes are."""
    assert parse_envelope(ENVELOPE.ljust(ENVELOPE_BYTES_MAX)) == STATEMENT
    with pytest.raises(LimitExceeded, match="envelope: 1409025 bytes, the limit is 1409024 bytes"):
        parse_envelope(ENVELOPE.ljust(ENVELOPE_BYTES_MAX + 1))
    with pytest.raises(LimitExceeded, match="envelope"):
        parse_envelope(b"\xff" * (ENVELOPE_BYTES_MAX + 1))


# ---- JSON ----

NOT_JSON: dict[str, bytes] = {
    "fraction": b'{"n":1.5}',
    "whole fraction": b'{"n":1.0}',
    "exponent": b'{"n":1e2}',
    "capital exponent": b'{"n":1E2}',
    "negative exponent": b"[1e-2]",
    "overflowing exponent": b"1e999999",
    "NaN": b'{"n":NaN}',
    "Infinity": b"[Infinity]",
    "-Infinity": b"-Infinity",
    "nan": b"nan",
    "leading zero": b"01",
    "plus sign": b"+1",
    "hexadecimal": b"0x10",
    "2^53": b"9007199254740992",
    "-2^53": b"-9007199254740992",
    "18 digits": b"100000000000000000",
    "a million digits": b"9" * 1_000_000,
    "a million negative digits": b"-" + b"9" * 1_000_000,
    "repeated member": b'{"a":1,"a":1}',
    "repeated member deep inside": b'{"x":[{"y":{"a":1,"b":2,"a":3}}]}',
    "repeated member by escape": b'{"a":1,"\\u0061":2}',
    "repeated empty name": b'{"":1,"":2}',
    "control character in text": b'"a\nb"',
    "NUL in text": b'"\x00"',
    "single quotes": b"{'a':1}",
    "trailing comma": b"[1,]",
    "comment": b"[1]//",
    "empty": b"",
    "two values": b"1 2",
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "deep lists left open": b"[" * 1_000_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "overlong UTF-8": b'"\xc0\xaf"',
    "surrogate in UTF-8": b'"\xed\xa0\x80"',
    "beyond Unicode": b'"\xf4\x90\x80\x80"',
    "cut UTF-8": b'"\xc3"',
}


@pytest.mark.parametrize("data", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_json_outside_the_rules_is_refused(data: bytes) -> None:
    """SPEC 1.5: one document, plain integers within ±(2^53 - 1), no repeated names, UTF-8."""
    with pytest.raises(MalformedStatement, match=r"^the body: ") as caught:
        parse_json(data, what="the body")
    assert len(caught.value.message) < 100  # it tells the rule, not the input


@pytest.mark.parametrize("data", [b"27182.8", b"27182e8", b"27182818284590452353"], ids=repr)
def test_a_refused_number_is_not_told(data: bytes) -> None:
    """The message names the rule; digits that were meant for another place stay out of it."""
    with pytest.raises(MalformedStatement) as caught:
        parse_json(data, what="body")
    assert "27182" not in caught.value.message


@pytest.mark.parametrize("number", [0, -1, INTEGER_MAX, -INTEGER_MAX, 10**15])
def test_integers_up_to_2_53_minus_1_are_read(number: int) -> None:
    """The edges of the range in which every JSON reader keeps integers exact."""
    assert parse_json(str(number).encode(), what="body") == number


def test_json_is_read_as_it_stands() -> None:
    """Text beyond ASCII, escapes, nesting and white space are JSON like any other."""
    assert parse_json('{"ü": ["€\\u00e9", {"b": null, "a": [true, -1]}]}\n'.encode(), what="body") == {
        "ü": ["€é", {"b": None, "a": [True, -1]}]
    }


def test_canonical_json_is_sorted_and_tight() -> None:
    """Writers sort member names at every depth, write no white space and keep text as UTF-8."""
    assert (
        canonical_json({"b": [1, {"z": 1, "y": "ü"}], "a": None}) == '{"a":null,"b":[1,{"y":"ü","z":1}]}'.encode()
    )


def test_canonical_json_writes_no_nan() -> None:
    """What no reader would take is not written."""
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json(float("nan"))


# ---- properties ----


@given(
    st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=128),
    st.binary(max_size=200),
    st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4),
)
@BRIEF
def test_an_envelope_is_read_as_it_was_written(payload_type: str, body: bytes, signers: list[str]) -> None:
    """Type, body and signatures survive the envelope exactly, and verify afterwards."""
    statement = Statement.sign(payload_type, body, *map(signing_key, signers))
    read = parse_envelope(statement.envelope())
    assert read == statement
    assert read.digest == statement.digest
    for name in signers:
        read.verify_signature(signing_key(name).public_key, signing_key(name).key_id)


@given(st.integers(0, len(ENVELOPE) - 1), st.integers(1, 255))
@BRIEF
def test_no_changed_byte_goes_unnoticed(place: int, difference: int) -> None:
    """Whatever byte of an envelope is changed, it is refused or its signature no longer verifies."""
    changed = bytearray(ENVELOPE)
    changed[place] ^= difference
    with pytest.raises(PermanentError):
        parse_envelope(bytes(changed)).verify_signature(KEY.public_key, KEY.key_id)


def test_no_flipped_bit_goes_unnoticed() -> None:
    """The same for every single bit of the envelope, one after the other."""
    for bit in range(len(ENVELOPE) * 8):
        changed = bytearray(ENVELOPE)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PermanentError):
            parse_envelope(bytes(changed)).verify_signature(KEY.public_key, KEY.key_id)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
ENVELOPE_LIKE = st.fixed_dictionaries(
    {"payload": JSON_VALUES, "payloadType": JSON_VALUES, "signatures": JSON_VALUES | st.lists(JSON_VALUES)}
)
READERS: list[Callable[[bytes], object]] = [lambda data: parse_json(data, what="body"), parse_envelope]


@pytest.mark.parametrize("read", READERS, ids=["parse_json", "parse_envelope"])
@given(
    st.binary(max_size=100)
    | st.text(alphabet='{}[]",:0123456789.eE-+ntrufalsNI\\ud8 ', max_size=40).map(str.encode)
    | (JSON_VALUES | ENVELOPE_LIKE).map(lambda value: json.dumps(value).encode())
)
@BRIEF
def test_no_bytes_make_a_reader_raise_anything_but_our_errors(read: Callable[[bytes], object], data: bytes) -> None:
    """Arbitrary bytes, bytes made of JSON's characters, and JSON of any shape are read or refused."""
    try:
        read(data)
    except PermanentError as error:
        assert error.message  # noqa: PT017  both outcomes are right; a third is not


@given(JSON_VALUES)
@BRIEF
def test_json_that_is_accepted_is_what_was_written(value: object) -> None:
    """The reader accepts what a plain JSON reader does or refuses it; it never reads something else."""
    data = json.dumps(value).encode()
    try:
        read = parse_json(data, what="body")
    except MalformedStatement:
        return
    assert read == json.loads(data)


def test_the_key_id_is_that_of_the_signing_key() -> None:
    """The key id written into an envelope is the one that SPEC 1.4 computes from the public key."""
    expected = sha256(b"strongroom/signing-key/v1" + KEY.public_key).hexdigest()[:32]
    assert SIGNATURE["keyid"] == expected == key_id(KEY.public_key)
