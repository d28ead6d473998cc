"""Signed statements: DSSE envelopes over exact body bytes (SPEC section 1). Pure."""

import binascii
import hashlib
import json
import re
from base64 import b64encode
from dataclasses import dataclass
from functools import cached_property
from typing import NoReturn

from strongroom.crypto.signing import SigningKey, verify
from strongroom.errors import LimitExceeded, MalformedStatement, SignatureInvalid
from strongroom.limits import BODY_BYTES_MAX, ENVELOPE_BYTES_MAX, INTEGER_MAX, SIGNATURES_MAX

_SIGNATURE_BYTES = 64
_TYPE_CHARACTERS_MAX = 128
_ENVELOPE_MEMBERS = {"payload", "payloadType", "signatures"}
_SIGNATURE_MEMBERS = {"keyid", "sig"}
_KEY_ID = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature: the key id that hints at the key, and 64 bytes of Ed25519."""

    key_id: str
    value: bytes


def pae(payload_type: str, body: bytes) -> bytes:
    """Return the bytes that are signed: DSSE pre-authentication encoding (DSSE protocol 1.0.2)."""
    encoded_type = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(encoded_type), encoded_type, len(body), body)


@dataclass(frozen=True)
class Statement:
    """A media type, exact body bytes and one or more signatures over both.

    Holding a Statement means that its envelope was well formed; it does not mean that anybody's
    signature was checked: that is `verify_signature`.
    """

    type: str
    body: bytes
    signatures: tuple[Signature, ...]

    @cached_property
    def digest(self) -> bytes:
        """Statement digest, 32 bytes: SHA-256 of the PAE (SPEC 1.2). Signatures are not part of it."""
        return hashlib.sha256(pae(self.type, self.body)).digest()

    @classmethod
    def sign(cls, payload_type: str, body: bytes, *keys: SigningKey) -> "Statement":
        """Return a statement over these bytes signed by each key.

        Raises LimitExceeded for a body over BODY_BYTES_MAX: better here than at the other end.
        """
        if len(body) > BODY_BYTES_MAX:
            raise LimitExceeded(f"body: {len(body)} bytes, the limit is {BODY_BYTES_MAX} bytes")
        unsigned = cls(payload_type, body, ())
        for key in keys:
            unsigned = unsigned.countersigned(key)
        return unsigned

    def countersigned(self, key: SigningKey) -> "Statement":
        """Return the same statement with one more signature; the digest stays.

        Raises LimitExceeded for one signature over SIGNATURES_MAX.
        """
        if len(self.signatures) >= SIGNATURES_MAX:
            raise LimitExceeded(f"signatures: the limit is {SIGNATURES_MAX}")
        signature = Signature(key.key_id, key.sign(pae(self.type, self.body)))
        return Statement(self.type, self.body, (*self.signatures, signature))

    def document(self) -> dict[str, object]:
        """Return the DSSE envelope as a JSON object, to stand alone or inside another document (SPEC 1.3)."""
        return {
            "payload": b64encode(self.body).decode(),
            "payloadType": self.type,
            "signatures": [{"keyid": s.key_id, "sig": b64encode(s.value).decode()} for s in self.signatures],
        }

    def envelope(self) -> bytes:
        """Return the DSSE JSON envelope as bytes (SPEC 1.3)."""
        return json.dumps(self.document(), separators=(",", ":")).encode()

    def verify_signature(self, public_key: bytes, key_id: str) -> None:
        """Check that the holder of `public_key` signed this statement.

        Arguments: the raw 32-byte Ed25519 key and its key id, which picks the signatures to try.
        Raises SignatureInvalid when there is none by that key, or none that verifies.
        """
        signed = pae(self.type, self.body)
        failure = SignatureInvalid(f"signatures: none by key {key_id}")
        for signature in self.signatures:
            if signature.key_id == key_id:
                try:
                    verify(public_key, signed, signature.value)
                except SignatureInvalid as error:
                    failure = error
                else:
                    return
        raise failure


def parse_envelope(data: bytes) -> Statement:
    """Read a DSSE envelope strictly (SPEC 1.3).

    Raises MalformedStatement naming the member at fault, LimitExceeded naming the limit, or
    SignatureInvalid for an envelope without signatures.
    """
    if len(data) > ENVELOPE_BYTES_MAX:
        raise LimitExceeded(f"envelope: {len(data)} bytes, the limit is {ENVELOPE_BYTES_MAX} bytes")
    return statement_from_document(parse_json(data, what="envelope"))


def statement_from_document(document: object) -> Statement:
    """Read an envelope that stands as an object inside another JSON document; errors as `parse_envelope`."""
    if not isinstance(document, dict) or document.keys() != _ENVELOPE_MEMBERS:
        raise MalformedStatement("envelope: its members must be exactly payload, payloadType and signatures")
    payload_type = document["payloadType"]
    if (
        not isinstance(payload_type, str)
        or len(payload_type) > _TYPE_CHARACTERS_MAX
        or not (payload_type.isascii() and payload_type.isprintable())
    ):
        raise MalformedStatement(f"payloadType: must be printable ASCII, at most {_TYPE_CHARACTERS_MAX} characters")
    body = decode_base64(document["payload"], "payload")
    if len(body) > BODY_BYTES_MAX:
        raise LimitExceeded(f"body: {len(body)} bytes, the limit is {BODY_BYTES_MAX} bytes")
    listed = document["signatures"]
    if not isinstance(listed, list):
        raise MalformedStatement("signatures: must be a list")
    if not listed:
        raise SignatureInvalid("signatures: there must be at least one")
    if len(listed) > SIGNATURES_MAX:
        raise LimitExceeded(f"signatures: {len(listed)}, the limit is {SIGNATURES_MAX}")
    return Statement(payload_type, body, tuple(_signature(entry) for entry in listed))


def _signature(entry: object) -> Signature:
    if not isinstance(entry, dict) or entry.keys() != _SIGNATURE_MEMBERS:
        raise MalformedStatement("signatures: the members of each must be exactly keyid and sig")
    key_id = entry["keyid"]
    if not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id):
        raise MalformedStatement("signatures.keyid: must be 32 hex digits")
    value = decode_base64(entry["sig"], "signatures.sig")
    if len(value) != _SIGNATURE_BYTES:
        raise MalformedStatement(f"signatures.sig: {len(value)} bytes, must be {_SIGNATURE_BYTES}")
    return Signature(key_id, value)


def decode_base64(text: object, field: str) -> bytes:
    """Decode canonical base64 with padding (SPEC preamble); raises MalformedStatement naming `field`."""
    if not isinstance(text, str):
        raise MalformedStatement(f"{field}: must be base64 text")
    try:
        decoded = binascii.a2b_base64(text)  # leaves out what is no base64; then it is not the same text again
        if binascii.b2a_base64(decoded, newline=False) == text.encode():
            return decoded
        binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):
        raise MalformedStatement(f"{field}: is not base64") from None
    raise MalformedStatement(f"{field}: is not canonical base64")


def parse_json(data: bytes, *, what: str) -> object:
    """Parse JSON under the rules of SPEC 1.5 that do not depend on a type.

    Arguments: `what` names the document in errors. Raises MalformedStatement for text that is no UTF-8
    or no JSON, repeated member names, fractions, exponents, NaN, infinities, integers that other
    readers round, nesting that exhausts the reader; text inside is checked by the models.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedStatement(f"{what}: is not UTF-8") from None

    try:
        document: object = _DECODER.decode(text)
    except _RefusedError as error:
        raise MalformedStatement(f"{what}: {error}") from None
    except (ValueError, RecursionError):
        raise MalformedStatement(f"{what}: is not JSON") from None
    return document


class _RefusedError(Exception):
    """JSON that no statement may hold; the text says why."""


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _RefusedError("a member name is repeated")
    return members


def _refuse(_token: str) -> NoReturn:
    raise _RefusedError("a number with a fraction or an exponent, NaN or an infinity")


def _integer(token: str) -> int:
    if len(token) > _INTEGER_CHARACTERS_MAX or abs(int(token)) > INTEGER_MAX:
        raise _RefusedError("an integer beyond ±(2^53 - 1)")
    return int(token)


_INTEGER_CHARACTERS_MAX = len(str(-INTEGER_MAX))
# Made once: to make it takes as long as to read an envelope with it.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_refuse, parse_constant=_refuse, parse_int=_integer
)


def canonical_json(document: object) -> bytes:
    """Write JSON the way bodies and log leaves are written: sorted members, no white space, UTF-8."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
