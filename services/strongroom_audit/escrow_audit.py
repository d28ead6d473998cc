"""The escrow log's leaves against the statements that they name, and these up to the root key. Pure.

This is where an audit spends its time, so it reads by exact spelling first: a leaf, an envelope, a body that are
spelled as our writers do need no second look. Whatever is spelled otherwise goes the long way through the models.
"""

import binascii
import json
import re
from array import array
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Final, NamedTuple, NoReturn

from strongroom.crypto.signing import verify
from strongroom.errors import PermanentError, SignatureInvalid
from strongroom.fields import parse_body
from strongroom.leaves import EscrowLeaf, parse_leaf
from strongroom.limits import BODY_BYTES_MAX, CLOCK_SKEW_SECONDS, INTEGER_MAX, RECORDS_MAX
from strongroom.messages import Escrow
from strongroom.statements import Statement, pae, parse_envelope
from strongroom_audit.clocks import Clock
from strongroom_audit.duplicates import WrappedKey
from strongroom_audit.findings import Finding, error, warning

UNKNOWN: Final = 0xFFFF
"""In place of a number of records, where the statement is lost."""

_ID: Final = "[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_RECORD_ID: Final = re.compile(_ID)
_LEAF: Final = re.compile(
    rf'\{{"digest":"([0-9a-f]{{64}})","id":"({_ID})","key":"([0-9a-f]{{32}})","principal":"([a-z0-9-]{{3,64}})",'
    rf'"time":(0|[1-9][0-9]{{0,15}}),"type":"escrow"\}}'
)
_HEAD: Final = b'{"payload":"'
_TAIL: Final = re.compile(
    rb'","payloadType":"%b","signatures":\[\{"keyid":"([0-9a-f]{32})","sig":"([A-Za-z0-9+/]{86}==)"\}\]\}'
    % re.escape(Escrow.TYPE.encode())
)
_TAIL_BYTES: Final = len('","payloadType":"","signatures":[{"keyid":"","sig":""}]}') + len(Escrow.TYPE) + 32 + 88
_DIGITS_MAX: Final = len(str(-INTEGER_MAX))
_MEMBERS: Final = {"authority", "id", "issued_at", "principal", "records"}
_ROW: Final = b'["%b"]'
_PAE_HEAD: Final = b"DSSEv1 %d %b " % (len(Escrow.TYPE), Escrow.TYPE.encode())


class Key(NamedTuple):
    """A key that spoke for a principal: id, public key (None: its enrolment does not hold), from and until when."""

    key_id: str
    public_key: bytes | None
    since: int
    until: int | None

    def was_in_force(self, time: int) -> bool:
        """Say whether it was in force at a time of another clock (SPEC 2.10)."""
        after = self.until is not None and time > self.until + CLOCK_SKEW_SECONDS
        return not after and time >= self.since - CLOCK_SKEW_SECONDS


@dataclass(frozen=True, slots=True)
class Rules:
    """What the leaves are judged by.

    keys: of every principal, in the order of the recovery log. It has those of leaves below index `settled`, and of
    leaves before `newest`, the time of its last leaf. wanted: record ids of which the owner is asked for.
    """

    authority: str
    keys: Mapping[str, tuple[Key, ...]]
    settled: int
    newest: int
    wanted: frozenset[str]
    signatures: bool
    now: int


class Owner(NamedTuple):
    """Whose a record is, under which name, and by which leaf."""

    record: str
    principal: str
    name: str
    leaf: int


@dataclass(slots=True)
class Judged:
    """What came out of a run of leaves.

    records, statements: 24 bytes each, id and leaf index, to be compared over the whole log. counts: records of
    each statement, UNKNOWN for a lost one. signatures: how many were verified.
    """

    findings: list[Finding] = field(default_factory=list)
    owners: list[Owner] = field(default_factory=list)
    wrapped: list[WrappedKey] = field(default_factory=list)
    records: bytearray = field(default_factory=bytearray)
    statements: bytearray = field(default_factory=bytearray)
    counts: "array[int]" = field(default_factory=lambda: array("H"))
    clock: Clock = field(default_factory=lambda: Clock("escrow"))
    signatures: int = 0


class _Leaf(NamedTuple):
    digest: str
    id: str
    key: str
    principal: str
    time: int


class _Signed(NamedTuple):
    """A statement's body, and the id of the only key that signed it with its signature; or the statement whole."""

    body: bytes
    key_id: str
    signature: bytes
    statement: Statement | None


def judge(first: int, leaves: list[bytes], statements: list[bytes], rows: list[bytes], rules: Rules) -> Judged:
    """Judge consecutive leaves, from index `first` on, with their lines of the export; never raises."""
    found = Judged()
    for index, lines in enumerate(zip(leaves, statements, rows, strict=True), first):
        _judge_one(index, lines, rules, found)
    return found


def _judge_one(index: int, lines: tuple[bytes, bytes, bytes], rules: Rules, found: Judged) -> None:
    leaf, line, row = lines
    count = UNKNOWN
    entry = _leaf(index, leaf, found.findings) if leaf else None
    if entry is not None:
        found.clock.take(index, entry.time, rules.now)
        found.statements += bytes.fromhex(entry.id.replace("-", "")) + index.to_bytes(8, "big")
    signed = _signed(index, line, entry, found.findings)
    ids: list[str] | None = None
    if signed is not None:
        # A statement whose leaf is lost still says which records are concerned.
        records = _records(index, signed, entry, rules, found)
        if records is not None:
            count = len(records)
            ids = [id_ for id_, _ in records]
            suffix = index.to_bytes(8, "big")
            for id_ in ids:
                found.records += bytes.fromhex(id_.replace("-", "")) + suffix
            if rules.wanted and entry is not None:
                found.owners += [
                    Owner(id_, entry.principal, name, index) for id_, name in records if id_ in rules.wanted
                ]
        if entry is not None and rules.signatures:
            _verify(index, entry, signed, rules, found)
    _compare_rows(index, row, ids, found.findings)
    found.counts.append(count)


def _leaf(index: int, leaf: bytes, findings: list[Finding]) -> _Leaf | None:
    match = _LEAF.fullmatch(leaf.decode("latin-1"))
    if match is not None:
        digest, id_, key, principal, time = match.groups()
        if int(time) <= INTEGER_MAX:
            return _Leaf(digest, id_, key, principal, int(time))
    try:
        entry = parse_leaf(leaf)
    except PermanentError as failure:
        findings.append(error("escrow", index, "leaf_malformed", f"the leaf makes no sense: {failure.message}"))
        return None
    if not isinstance(entry, EscrowLeaf):
        findings.append(error("escrow", index, "leaf_malformed", f"a leaf of type {entry.type} in the escrow log"))
        return None
    findings.append(error("escrow", index, "leaf_malformed", "the leaf is not spelled as leaves are", id=entry.id))
    return _Leaf(entry.digest, entry.id, entry.key, entry.principal, entry.time)


def _signed(index: int, line: bytes, entry: _Leaf | None, findings: list[Finding]) -> _Signed | None:
    id_ = entry.id if entry else None
    if line in (b"", b"null"):
        if entry is not None:
            findings.append(error("escrow", index, "statement_missing", "the statement is missing", id=id_))
        return None
    signed = _read(line)
    if signed is None:
        try:
            statement = parse_envelope(line)
        except PermanentError as failure:
            words = f"the statement cannot be read: {failure.message}"
            findings.append(error("escrow", index, "statement_malformed", words, id=id_))
            return None
        if statement.type != Escrow.TYPE:
            findings.append(error("escrow", index, "statement_wrong", "the statement is of another type", id=id_))
            return None
        signed = _Signed(statement.body, "", b"", statement)
    if entry is not None:
        digest = sha256(_PAE_HEAD + b"%d " % len(signed.body) + signed.body).hexdigest()
        if digest != entry.digest:
            words = "the statement is not the one that the leaf names: another digest"
            findings.append(error("escrow", index, "statement_wrong", words, id=id_))
            return None
    return signed


def _read(line: bytes) -> _Signed | None:
    """Read an envelope with one signature that is spelled as ours are; None for any other."""
    at = len(line) - _TAIL_BYTES
    tail = _TAIL.fullmatch(line, at) if at > len(_HEAD) and line.startswith(_HEAD) else None
    if tail is None:
        return None
    payload = line[len(_HEAD) : at]
    try:
        body = binascii.a2b_base64(payload, strict_mode=True)
    except ValueError:
        return None
    # The decoder leaves the unused bits of the last group alone.
    if (
        len(body) > BODY_BYTES_MAX
        or b64encode(body[len(body) // 3 * 3 - 3 :]) != payload[-(4 if len(body) % 3 == 0 else 8) :]
    ):
        return None
    sig = tail[2]
    signature = binascii.a2b_base64(sig)
    if b64encode(signature) != sig:
        return None
    return _Signed(body, tail[1].decode(), signature, None)


def _records(
    index: int, signed: _Signed, entry: _Leaf | None, rules: Rules, found: Judged
) -> list[tuple[str, str]] | None:
    """Return id and name of each record; None for a body that is not what the leaf says it is."""
    findings = found.findings
    document = _plain(signed.body)
    if document is None:
        statement = signed.statement or Statement(Escrow.TYPE, signed.body, ())
        try:
            document = parse_body(statement, Escrow).model_dump(mode="json")
        except PermanentError as failure:
            id_ = entry.id if entry else None
            words = f"the statement makes no sense: {failure.message}"
            findings.append(error("escrow", index, "statement_malformed", words, id=id_))
            return None
    if document["authority"] != rules.authority:
        words = "the statement is addressed to another authority"
        findings.append(error("escrow", index, "statement_wrong", words, id=document["id"]))
    if entry is not None:
        for name in ("id", "principal"):
            if document[name] != getattr(entry, name):
                words = f"the statement's {name} is not that of the leaf"
                findings.append(error("escrow", index, "statement_wrong", words, id=entry.id))
        if document["issued_at"] > entry.time + CLOCK_SKEW_SECONDS:
            words = (
                f"stored {document['issued_at'] - entry.time} s before it was signed: one of two clocks was wrong"
            )
            findings.append(warning("escrow", index, "clock", words, id=entry.id))
    else:
        findings.append(
            warning(
                "escrow",
                index,
                "statement_unnamed",
                "this statement is stored where the leaf is lost",
                id=document["id"],
            )
        )
    if entry is not None:
        found.wrapped += _wrapped(index, entry.principal, document["records"])
    return [(record["id"], record["name"]) for record in document["records"]]


def _wrapped(index: int, principal: str, records: list[dict[str, Any]]) -> Iterator[WrappedKey]:
    for record in records:
        wrapping = record.get("wrapping")
        digest = wrapping.get("digest") if isinstance(wrapping, dict) else None
        if isinstance(digest, str):
            yield WrappedKey(digest, principal, index, record["id"])


def _plain(body: bytes) -> dict[str, Any] | None:
    """Read a body as far as it matters here, under the rules of SPEC 1.5; None where the models have to look."""
    try:
        text = body.decode()
        document, end = _READER.raw_decode(text)
        if end != len(text) or document.keys() != _MEMBERS:
            return None
        records, issued_at = document["records"], document["issued_at"]
        if type(records) is not list or not 0 < len(records) <= RECORDS_MAX or type(issued_at) is not int:
            return None
        for record in records:
            if _RECORD_ID.fullmatch(record["id"]) is None or type(record["name"]) is not str:
                return None
        if issued_at < 0 or (len(records) > 1 and len({record["id"] for record in records}) != len(records)):
            return None
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None
    return document  # type: ignore[no-any-return]  # the scanner gives anything


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member name is repeated")
    return members


def _whole(token: str) -> int:
    number = int(token) if len(token) <= _DIGITS_MAX else INTEGER_MAX + 1
    if abs(number) > INTEGER_MAX:
        raise ValueError("an integer beyond what other readers can hold")
    return number


def _refused(_token: str) -> NoReturn:
    raise ValueError("a number with a fraction or an exponent, NaN or an infinity")


_READER: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_whole, parse_float=_refused, parse_constant=_refused
)


def _verify(index: int, entry: _Leaf, signed: _Signed, rules: Rules, found: Judged) -> None:
    known = rules.keys.get(entry.principal, ())
    key = next((each for each in reversed(known) if each.key_id == entry.key), None)
    if key is None:
        words = f"signed by key {entry.key}, which was never enrolled for {entry.principal}"
        # `settled` is the export's own word, times are not.
        make = error if index < rules.settled or entry.time + CLOCK_SKEW_SECONDS < rules.newest else warning
        found.findings.append(make("escrow", index, "signer_unknown", words, id=entry.id))
        return
    if key.public_key is None:
        words = f"signed by key {entry.key} of {entry.principal}, whose enrolment does not hold"
        found.findings.append(error("escrow", index, "signer_unproven", words, id=entry.id))
        return
    try:
        _check_signature(signed, key.public_key, entry.key)
    except SignatureInvalid as failure:
        words = f"the signature does not hold: {failure.message}"
        found.findings.append(error("escrow", index, "signature_invalid", words, id=entry.id))
        return
    found.signatures += 1
    if not key.was_in_force(entry.time):
        words = f"signed by key {entry.key} of {entry.principal}, which was not in force at that time"
        found.findings.append(warning("escrow", index, "not_in_force", words, id=entry.id))


def _check_signature(signed: _Signed, public_key: bytes, key_id: str) -> None:
    if signed.statement is not None:
        signed.statement.verify_signature(public_key, key_id)
    elif signed.key_id != key_id:
        raise SignatureInvalid("not signed by the key that the leaf names")
    else:
        verify(public_key, pae(Escrow.TYPE, signed.body), signed.signature)


def _compare_rows(index: int, row: bytes, ids: list[str] | None, findings: list[Finding]) -> None:
    """Compare the database's index with what was signed; nothing can be said of a statement that is lost."""
    if not row:
        return  # the file is cut off, which is found already
    if ids is not None and row == _ROW % '","'.join(sorted(ids)).encode():
        return
    try:
        listed = json.loads(row)
    except (ValueError, RecursionError):
        listed = None
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        findings.append(error("escrow", index, "file_invalid", "the line of its rows makes no sense"))
        return
    if ids is None or (len(ids) == len(listed) and sorted(ids) == sorted(listed)):
        return
    signed, times = frozenset(ids), Counter(listed)
    words = "the database's index has a record that nobody signed here"
    findings += [
        error("escrow", index, "row_missing", "the record is missing from the database's index", id=id_)
        for id_ in ids
        if id_ not in times
    ]
    findings += [
        error("escrow", index, "row_extra", words, id=id_[:64])
        for id_ in sorted(times)
        if id_ not in signed or times[id_] > 1
    ]
