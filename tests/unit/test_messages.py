"""Wire models: every limit of SPEC section 11 at its edge, every refusal of SPEC 1.5, and silence about inputs."""

import copy
import json
import traceback
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.authority import (
    AUTHORITY,
    NOW,
    PRINCIPAL,
    enrolment_body,
    escrow_body,
    invitation,
    invitation_body,
    record,
    roster_body,
    sealing_key,
)

from strongroom import limits
from strongroom.crypto.sealing import Suite
from strongroom.errors import LimitExceeded, MalformedStatement, PermanentError
from strongroom.messages import (
    Body,
    Enrolment,
    Escrow,
    HistoryEntry,
    Invitation,
    ListedRecord,
    Listing,
    ListingRequest,
    Policy,
    RecordState,
    Rejection,
    Release,
    ReleasedRecord,
    Request,
    RequesterKind,
    RosterBody,
    media_type,
    new_id,
    parse_body,
    printable,
)
from strongroom.statements import Statement, canonical_json

DESCRIPTION = record().model_dump(include=set(ReleasedRecord.model_fields) - {"blob"})
ASKING: dict[str, Any] = {
    "authority": AUTHORITY,
    "id": new_id(),
    "issued_at": NOW,
    "expires_at": NOW + 300,
    "requester": PRINCIPAL,
    "requester_kind": RequesterKind.PRINCIPAL,
    "principal": PRINCIPAL,
}
RECIPIENT = sealing_key("recipient", Suite.P256)
REQUEST: dict[str, Any] = ASKING | {
    "reason": "the disk was replaced",
    "recipient_suite": RECIPIENT.suite,
    "recipient_key": RECIPIENT.public_key,
}
BODIES: dict[str, Body] = {
    "roster": roster_body(),
    "invitation": invitation_body(),
    "enrolment": enrolment_body(invitation()),
    "escrow": escrow_body(),
    "request by ids": Request(**REQUEST, records=[new_id(), new_id()], name=None),
    "request by name": Request(**REQUEST, records=None, name="disk/root"),
    "listing-request": ListingRequest(**ASKING, after=new_id()),
    "release": Release(
        authority=AUTHORITY,
        request=new_id(),
        request_digest="0" * 64,
        released_at=NOW,
        records=[ReleasedRecord(**DESCRIPTION, principal=PRINCIPAL, issued_at=NOW, blob=b"sealed")],
        history=[HistoryEntry(id=new_id(), issued_at=NOW, fingerprint="0" * 64)],
    ),
    "listing": Listing(
        authority=AUTHORITY,
        request=new_id(),
        request_digest="0" * 64,
        principal=PRINCIPAL,
        records=[
            ListedRecord(**DESCRIPTION, issued_at=NOW, stored_at=NOW, statement=new_id(), state=RecordState.STORED)
        ],
        next=None,
    ),
    "rejection": Rejection(
        authority=AUTHORITY, request=None, digest="0" * 64, code="malformed", message="why", rejected_at=NOW
    ),
}
DOCUMENTS: dict[str, dict[str, Any]] = {name: body.model_dump(mode="json") for name, body in BODIES.items()}

Path = tuple[str | int, ...]


class Place(NamedTuple):
    """Where in which kind of body a value stands."""

    kind: str
    path: Path

    def __str__(self) -> str:
        return f"{self.kind}: {'.'.join(map(str, self.path)) or 'body'}"

    def changed(self, value: object) -> bytes:
        """The body with this value there; `...` takes the member away."""
        document = copy.deepcopy(DOCUMENTS[self.kind])
        if not self.path:
            return json.dumps(value).encode()
        holder: Any = document
        for step in self.path[:-1]:
            holder = holder[step]
        if value is ...:
            del holder[self.path[-1]]
        else:
            holder[self.path[-1]] = value
        return json.dumps(document).encode()

    def value(self) -> Any:
        """What stands there in the good body."""
        value: Any = DOCUMENTS[self.kind]
        for step in self.path:
            value = value[step]
        return value


def parse(kind: str, data: bytes) -> Body:
    """Parse body bytes as the kind of statement that they are; no signature is looked at."""
    model = type(BODIES[kind])
    return parse_body(Statement(model.TYPE, data, ()), model)


def places(value: object, path: Path = ()) -> Iterator[Path]:
    """Every place in a document, from the whole of it down to each single value."""
    yield path
    steps: list[str | int] = []
    if isinstance(value, dict):
        steps = list(value)
    elif isinstance(value, list):
        steps = list(range(len(value)))
    for step in steps:
        yield from places(value[step], (*path, step))  # type: ignore[index]  # a dict or a list, see above


EVERYWHERE = [Place(kind, path) for kind, document in DOCUMENTS.items() for path in places(document)]
OBJECTS = [p for p in EVERYWHERE if isinstance(p.value(), dict) and p.path[-1:] != ("labels",)]
MEMBERS = [p for p in EVERYWHERE if p.path and isinstance(p.path[-1], str) and p.path[-2:-1] != ("labels",)]


# ---- shape ----


@pytest.mark.parametrize("kind", BODIES)
def test_a_body_is_read_as_it_was_written(kind: str) -> None:
    """What a writer writes, sorted and without white space, a reader reads back as the same values."""
    data = BODIES[kind].to_bytes()
    assert parse(kind, data) == BODIES[kind]
    assert data == canonical_json(DOCUMENTS[kind]) == canonical_json(json.loads(data))
    assert parse(kind, json.dumps(DOCUMENTS[kind], indent=2).encode()) == BODIES[kind]


@pytest.mark.parametrize("kind", BODIES)
def test_media_types_are_those_of_the_specification(kind: str) -> None:
    """Every body names its own type, `application/vnd.strongroom.<noun>.v1+json`."""
    assert media_type(kind.split(" ", maxsplit=1)[0]) == BODIES[kind].TYPE
    assert media_type("escrow") == "application/vnd.strongroom.escrow.v1+json"


@pytest.mark.parametrize("kind", BODIES)
def test_a_body_of_another_type_is_not_parsed(kind: str) -> None:
    """The signed type decides what a body may be read as, however well its members fit."""
    model = type(BODIES[kind])
    for other in {*(type(body).TYPE for body in BODIES.values()), "application/json"} - {model.TYPE}:
        with pytest.raises(MalformedStatement, match=r"^payloadType: "):
            parse_body(Statement(other, BODIES[kind].to_bytes(), ()), model)


@pytest.mark.parametrize("place", OBJECTS, ids=str)
def test_an_unknown_member_is_refused_at_every_level(place: Place) -> None:
    """SPEC 1.5: no object of a body may hold a member that its model does not name."""
    with pytest.raises(MalformedStatement, match="an unknown member"):
        parse(place.kind, place.changed(place.value() | {"surprise": 1}))


@pytest.mark.parametrize("place", [p for p in EVERYWHERE if isinstance(p.value(), dict)], ids=str)
def test_a_repeated_member_is_refused_at_every_level(place: Place) -> None:
    """SPEC 1.5: two members of one name are refused even when they say the same."""
    # A second copy of each object's members is spliced in where a marker stands for its last one.
    doubled = place.changed(place.value() | {"marker": 1})
    copied = json.dumps(place.value())[1:-1].encode()
    with pytest.raises(MalformedStatement, match="a member name is repeated"):
        parse(place.kind, doubled.replace(b'"marker": 1', copied))


@pytest.mark.parametrize("place", [p for p in MEMBERS if "policy" not in p.path[:-1]], ids=str)
def test_a_missing_member_is_refused_at_every_level(place: Place) -> None:
    """SPEC 1.5: every member must be there, also one that may be null; the first missing one is named."""
    with pytest.raises(MalformedStatement, match=rf"{place.path[-1]}: Field required"):
        parse(place.kind, place.changed(...))


def test_a_policy_has_defaults_when_it_is_written_and_none_when_it_is_read() -> None:
    """SPEC 2.3 gives a writer defaults; a reader wants every number signed (SPEC 1.5), or defaults could drift."""
    assert Policy().model_dump() == {
        "replacement_signatures": 2,
        "self_recovery_approvals": 0,
        "officer_recovery_approvals": 2,
    }
    place = Place("roster", ("policy",))
    for left_out in Policy.model_fields:
        with pytest.raises(MalformedStatement, match="policy: a member is missing"):
            parse("roster", place.changed({n: v for n, v in place.value().items() if n != left_out}))


NULLABLE = {"previous", "after", "next", "request", "name", "records"}
SCALARS: list[object] = [None, True, False, 7, "text\n", [], [[]], {}, {"a": {}}]


@pytest.mark.parametrize("place", EVERYWHERE, ids=str)
def test_a_value_of_another_json_type_is_refused(place: Place) -> None:
    """Nothing is coerced: no number for a text, no text for a number, no 1 for true, no null for anything."""
    good = place.value()
    for value in SCALARS:
        same_type = type(value) is type(good)
        null_may_be_text_or_list = good is None and isinstance(value, str | list)
        may_be_null = value is None and place.path and place.path[-1] in NULLABLE
        if same_type or null_may_be_text_or_list or may_be_null:
            continue
        with pytest.raises(PermanentError):
            parse(place.kind, place.changed(value))


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b'"authority"', b"1", b"{}", b"{", b"\xff", b"\x1f\x8b\x08"],
    ids=repr,
)
@pytest.mark.parametrize("kind", BODIES)
def test_bytes_that_are_no_body_are_refused(kind: str, data: bytes) -> None:
    """Empty input, other JSON values, broken JSON, no UTF-8 and compressed bytes are malformed (SPEC 1.7)."""
    with pytest.raises(MalformedStatement):
        parse(kind, data)


@pytest.mark.parametrize("number", ["1.0", "1e3", "NaN", "Infinity", "-Infinity", "9007199254740992", "9" * 5000])
@pytest.mark.parametrize("member", ["issued_at", "expires_at", "version"])
def test_numbers_are_plain_integers(member: str, number: str) -> None:
    """SPEC 1.5: no fraction, exponent, NaN, infinity or integer beyond ±(2^53 - 1) in any number of a body."""
    data = Place("roster", (member,)).changed("marker").replace(b'"marker"', number.encode())
    with pytest.raises(MalformedStatement, match=r"^body: "):
        parse("roster", data)


def test_times_reach_from_zero_to_2_53_minus_1() -> None:
    """The edges of a time: 0 and the last exact integer are taken, -1 is not."""
    for seconds in (0, limits.INTEGER_MAX):
        read = parse("escrow", Place("escrow", ("issued_at",)).changed(seconds))
        assert isinstance(read, Escrow)
        assert read.issued_at == seconds
    with pytest.raises(LimitExceeded, match="issued_at: the limit is at least 0"):
        parse("escrow", Place("escrow", ("issued_at",)).changed(-1))


# ---- limits ----


def text_of(length: int) -> str:
    """Text of so many characters, each of four bytes in UTF-8: limits count characters."""
    return "\U0001f511" * length


def ids_of(count: int) -> list[str]:
    """So many distinct ids."""
    return [new_id() for _ in range(count)]


def copies_of(kind: str, member: str) -> Callable[[int], list[dict[str, Any]]]:
    """A maker of lists of so many entries like the one in the good body, with distinct ids where there are any."""
    entry: dict[str, Any] = DOCUMENTS[kind][member][0]
    return lambda count: [entry | ({"id": new_id()} if "id" in entry else {}) for _ in range(count)]


def labels_of(count: int) -> dict[str, str]:
    """So many labels."""
    return {f"label {number}": "" for number in range(count)}


class Limit(NamedTuple):
    """A limit: where it holds, how to make a value of some size, the smallest and largest size, and its unit."""

    place: Place
    make: Callable[[int], object]
    smallest: int
    largest: int
    unit: str

    def __str__(self) -> str:
        return f"{self.place} {self.smallest} to {self.largest}"


RECORD: Path = ("records", 0)
LIMITS = [
    Limit(Place("escrow", ("records",)), copies_of("escrow", "records"), 1, limits.RECORDS_MAX, "entries"),
    Limit(Place("escrow", (*RECORD, "name")), text_of, 1, limits.NAME_CHARACTERS_MAX, "characters"),
    Limit(Place("escrow", (*RECORD, "description")), text_of, 0, limits.DESCRIPTION_CHARACTERS_MAX, "characters"),
    Limit(
        Place("escrow", (*RECORD, "serial_number")), text_of, 0, limits.SERIAL_NUMBER_CHARACTERS_MAX, "characters"
    ),
    Limit(Place("escrow", (*RECORD, "algorithm")), text_of, 0, limits.ALGORITHM_CHARACTERS_MAX, "characters"),
    Limit(Place("escrow", (*RECORD, "labels")), labels_of, 0, limits.LABELS_MAX, "entries"),
    Limit(
        Place("escrow", (*RECORD, "labels")),
        lambda length: {text_of(length): ""},
        1,
        limits.LABEL_NAME_CHARACTERS_MAX,
        "characters",
    ),
    Limit(
        Place("escrow", (*RECORD, "labels")),
        lambda length: {"label": text_of(length)},
        0,
        limits.LABEL_VALUE_CHARACTERS_MAX,
        "characters",
    ),
    Limit(Place("escrow", ("principal",)), lambda length: "p" * length, 3, 64, "characters"),
    Limit(Place("roster", ("officers", 0, "name")), lambda length: "p" * length, 3, 64, "characters"),
    Limit(Place("request by ids", ("requester",)), lambda length: "p" * length, 3, 64, "characters"),
    Limit(Place("request by ids", ("records",)), ids_of, 1, limits.RECORDS_MAX, "entries"),
    Limit(Place("request by ids", ("reason",)), text_of, 0, limits.REASON_CHARACTERS_MAX, "characters"),
    Limit(Place("request by name", ("name",)), text_of, 1, limits.NAME_CHARACTERS_MAX, "characters"),
    Limit(Place("release", ("records",)), copies_of("release", "records"), 1, limits.RECORDS_MAX, "entries"),
    Limit(
        Place("listing", ("records",)), copies_of("listing", "records"), 0, limits.LISTING_RECORDS_MAX, "entries"
    ),
    Limit(
        Place("roster", ("sealing_keys",)),
        copies_of("roster", "sealing_keys"),
        1,
        limits.SEALING_KEYS_MAX,
        "entries",
    ),
    Limit(Place("roster", ("officers",)), copies_of("roster", "officers"), 0, limits.OFFICERS_MAX, "entries"),
    Limit(Place("roster", ("version",)), int, 1, limits.INTEGER_MAX, ""),
    Limit(Place("roster", ("policy", "replacement_signatures")), int, 1, limits.SIGNATURES_MAX, ""),
    Limit(Place("roster", ("policy", "self_recovery_approvals")), int, 0, limits.SIGNATURES_MAX, ""),
    Limit(Place("roster", ("policy", "officer_recovery_approvals")), int, 1, limits.SIGNATURES_MAX, ""),
    Limit(Place("rejection", ("message",)), text_of, 0, 2048, "characters"),
]


@pytest.mark.parametrize("limit", LIMITS, ids=str)
def test_the_edges_of_a_limit_are_accepted(limit: Limit) -> None:
    """The smallest and the largest size are taken."""
    for size in (limit.smallest, limit.largest):
        parse(limit.place.kind, limit.place.changed(limit.make(size)))


@pytest.mark.parametrize("limit", [each for each in LIMITS if each.largest < limits.INTEGER_MAX], ids=str)
def test_one_beyond_a_limit_is_refused_naming_field_and_limit(limit: Limit) -> None:
    """One more than the largest size is refused as `limit_exceeded`, and the message says where and what holds."""
    field = ".".join(map(str, limit.place.path))
    expected = f"{field}: the limit is at most {limit.largest} {limit.unit}".rstrip()
    with pytest.raises(LimitExceeded) as caught:
        parse(limit.place.kind, limit.place.changed(limit.make(limit.largest + 1)))
    assert caught.value.message == expected


@pytest.mark.parametrize("limit", [each for each in LIMITS if each.smallest > 0], ids=str)
def test_one_below_a_limit_is_refused_naming_field_and_limit(limit: Limit) -> None:
    """One less than the smallest size is refused in the same way."""
    field = ".".join(map(str, limit.place.path))
    expected = f"{field}: the limit is at least {limit.smallest} {limit.unit}".rstrip()
    with pytest.raises(LimitExceeded) as caught:
        parse(limit.place.kind, limit.place.changed(limit.make(limit.smallest - 1)))
    assert caught.value.message == expected


def test_the_fullest_record_text_fits_256_times_into_a_body() -> None:
    """Limits of one record and of a statement go together for records whose text is plain."""
    plain = record(
        name="n" * limits.NAME_CHARACTERS_MAX,
        description="d" * limits.DESCRIPTION_CHARACTERS_MAX,
        serial_number="s" * limits.SERIAL_NUMBER_CHARACTERS_MAX,
        algorithm="a" * limits.ALGORITHM_CHARACTERS_MAX,
    )
    records = [plain.model_copy(update={"id": new_id()}) for _ in range(limits.RECORDS_MAX)]
    assert len(escrow_body(records=records).to_bytes()) <= limits.BODY_BYTES_MAX


# ---- formats ----

BAD_PRINCIPALS = ["Laptop", "lap_top", "lap.top", "läptop", "laptop\n", "lap\0top", "../etc", "a*b", "a#b"]
BAD_IDS = [
    "",
    "01890a5d-ac96-474b-bcce-b302099a8057",  # version 4
    "01890a5d-ac96-774b-0cce-b302099a8057",  # another variant
    "01890A5D-AC96-774B-BCCE-B302099A8057",
    "01890a5dac96774bbcceb302099a8057",
    "{01890a5d-ac96-774b-bcce-b302099a8057}",
    "urn:uuid:01890a5d-ac96-774b-bcce-b302099a8057",
    "01890a5d-ac96-774b-bcce-b302099a8057\n",
    "01890a5d-ac96-774b-bcce-b302099a80570",
]
BAD_KEYS = [b64encode(bytes(length)).decode() for length in (0, 31, 33)]
BAD_FORMATS: dict[Place, list[Any]] = {
    Place("escrow", ("principal",)): BAD_PRINCIPALS,
    Place("request by ids", ("requester",)): BAD_PRINCIPALS,
    Place("escrow", ("id",)): BAD_IDS,
    Place("escrow", (*RECORD, "id")): BAD_IDS,
    Place("request by ids", ("records", 0)): BAD_IDS,
    Place("listing-request", ("after",)): BAD_IDS,
    Place("escrow", (*RECORD, "kind")): ["", "k" * 65, "Key", "session_key", "key\n"],
    Place("escrow", (*RECORD, "fingerprint")): ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 64 + "\n"],
    Place("escrow", (*RECORD, "kid")): ["", "0" * 31, "0" * 33, "A" * 32, "0" * 32 + "\n"],
    Place("escrow", (*RECORD, "suite")): ["", "X-WING", "x-wing\n", "rot13"],
    Place("escrow", (*RECORD, "blob")): ["YR==", "YQ", "YWJj\n", "_-8=", "YQ==YQ==", "ü"],
    Place("escrow", ("authority",)): ["", "ab", "a" * 129, "Backup", "-ab", "a/b", "a b", "abc\n"],
    Place("escrow", (*RECORD, "labels")): [{"label": 1}, {"label": None}, {"label": []}, [["label", "text"]]],
    Place("enrolment", ("signing_key",)): BAD_KEYS,
    Place("invitation", ("one_time_key",)): BAD_KEYS,
    Place("roster", ("officers", 0, "public_key")): BAD_KEYS,
    Place("roster", ("logs", "recovery", "public_key")): BAD_KEYS,
    Place("roster", ("replies", "escrow")): BAD_KEYS,
    Place("roster", ("sealing_keys", 0, "state")): ["", "ACTIVE", "retired"],
    Place("roster", ("officers", 0, "roles")): [["root"], ["invite\n"], [1], "invite"],
    Place("roster", ("previous",)): ["", "0" * 63, "A" * 64],
    Place("roster", ("logs", "escrow", "origin")): ["Backup/escrow", "a b", "abc\n", "a+b"],
    Place("request by ids", ("requester_kind",)): ["", "root", "OFFICER"],
    Place("listing", ("records", 0, "state")): ["", "proven"],
    Place("rejection", ("code",)): ["", "Malformed", "c" * 65, "two words"],
}


@pytest.mark.parametrize("place", BAD_FORMATS, ids=str)
def test_a_value_out_of_format_is_malformed(place: Place) -> None:
    """Names, ids, digests, keys, suites, states and base64 have one spelling; the message names the field."""
    for value in BAD_FORMATS[place]:
        with pytest.raises(MalformedStatement) as caught:
            parse(place.kind, place.changed(value))
        assert caught.value.message.startswith(".".join(map(str, place.path)))


@pytest.mark.parametrize("kind", [1, 64])
def test_kinds_of_1_to_64_characters_are_accepted(kind: int) -> None:
    """The edges of a record's kind (SPEC 4.1)."""
    parse("escrow", Place("escrow", (*RECORD, "kind")).changed("k" * kind))


@pytest.mark.parametrize("authority", ["abc", "a" * 128, "backup.example.org", "0-1"])
def test_authority_ids_of_3_to_128_characters_are_accepted(authority: str) -> None:
    """The edges of an authority's id."""
    assert parse("escrow", Place("escrow", ("authority",)).changed(authority)).authority == authority


CONTROLS = [*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0))]
SURROGATES = ["\ud800", "\udbff", "\udc00", "\udfff", "\udc00\ud800"]
TEXTS = [
    Place("escrow", (*RECORD, "name")),
    Place("escrow", (*RECORD, "description")),
    Place("escrow", (*RECORD, "serial_number")),
    Place("escrow", (*RECORD, "algorithm")),
    Place("request by ids", ("reason",)),
    Place("request by name", ("name",)),
    Place("release", (*RECORD, "description")),
    Place("listing", (*RECORD, "name")),
    Place("rejection", ("message",)),
]


@pytest.mark.parametrize("place", TEXTS, ids=str)
def test_text_holds_no_control_character_and_no_lone_surrogate(place: Place) -> None:
    """SPEC 1.5: U+0000 to U+001F, U+007F to U+009F and lone surrogates are refused wherever people write text."""
    for character in CONTROLS + SURROGATES:
        with pytest.raises(MalformedStatement, match=rf"^{'.'.join(map(str, place.path))}: "):
            parse(place.kind, place.changed(f"a{character}b"))


def test_labels_hold_no_control_character_and_no_lone_surrogate() -> None:
    """The same for the names and the values of labels; which label it is, the message keeps to itself."""
    place = Place("escrow", (*RECORD, "labels"))
    for character in CONTROLS + SURROGATES:
        for labels in ({f"a{character}b": "value"}, {"label": f"a{character}b"}):
            with pytest.raises(MalformedStatement, match=r"^records\.0\.labels: "):
                parse("escrow", place.changed(labels))


@pytest.mark.parametrize(
    "text", [" ", "~", "\xa0", "ÿ", "\u2028", "\ud7ff", "\ue000", "\U0001f511", "a\u0301"], ids=ascii
)
def test_other_text_is_kept_as_it_is(text: str) -> None:
    """The neighbours of what is refused, and text beyond the first plane, are read unchanged, never normalised."""
    read = parse("escrow", Place("escrow", (*RECORD, "name")).changed(text))
    assert isinstance(read, Escrow)
    assert read.records[0].name == text


def test_an_escaped_surrogate_pair_is_one_character() -> None:
    r"""`\ud83d\udd11` is one character beyond the first plane; each half alone is refused."""
    place = Place("escrow", (*RECORD, "name"))
    read = parse("escrow", place.changed("marker").replace(b"marker", rb"\ud83d\udd11"))
    assert isinstance(read, Escrow)
    assert read.records[0].name == "\U0001f511"
    for half in (rb"\ud83d", rb"\udd11", rb"\udd11\ud83d"):
        with pytest.raises(MalformedStatement, match="name"):
            parse("escrow", place.changed("marker").replace(b"marker", half))


# ---- rules between members ----


def test_two_records_with_one_id_are_refused() -> None:
    """Record ids of an escrow statement are distinct (SPEC 4.1)."""
    same = record()
    document = DOCUMENTS["escrow"] | {"records": [same.model_dump(mode="json")] * 2}
    with pytest.raises(MalformedStatement, match="records: two have the same id"):
        parse("escrow", canonical_json(document))


def test_an_id_asked_for_twice_is_refused() -> None:
    """Record ids of a request are distinct: one release of each."""
    with pytest.raises(MalformedStatement, match="records: an id is repeated"):
        parse("request by ids", Place("request by ids", ("records",)).changed([new_id()] * 2))


@pytest.mark.parametrize(("records", "name"), [(None, None), ([new_id()], "disk/root")], ids=["neither", "both"])
def test_a_request_selects_in_exactly_one_way(records: list[str] | None, name: str | None) -> None:
    """Exactly one of `records` and `name` is given (SPEC 5.1)."""
    document = DOCUMENTS["request by ids"] | {"records": records, "name": name}
    with pytest.raises(MalformedStatement, match="records, name: exactly one must be given"):
        parse("request by ids", canonical_json(document))


# ---- what errors say ----

CANARY = "hunter2-canary"


def _assert_silent(kind: str, data: bytes) -> None:
    with pytest.raises(PermanentError) as caught:
        parse(kind, data)
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert CANARY not in told
    assert b64encode(CANARY.encode()).decode() not in told
    assert len(caught.value.message) < 400
    assert printable(caught.value.message) == caught.value.message


@pytest.mark.parametrize("place", [p for p in EVERYWHERE if p.path], ids=str)
def test_no_error_tells_the_value_that_was_refused(place: Place) -> None:
    """Messages name the field and the rule, never the value, nor the name of a member that is not ours."""
    long = CANARY * 200 + "\n"
    for value in (long, [long], {long: long}, {long: 1}, {long: {"x": [long]}}):
        _assert_silent(place.kind, place.changed(value))


@pytest.mark.parametrize("place", [p for p in EVERYWHERE if isinstance(p.value(), dict)], ids=str)
def test_no_error_tells_the_name_of_an_unknown_member(place: Place) -> None:
    """A member that nobody expects may be a secret in the wrong place; its name stays out of the message too."""
    for name in (CANARY, CANARY + "\x07\n", CANARY * 10_000, CANARY + "\ud800"):
        _assert_silent(place.kind, place.changed(place.value() | {name: [CANARY]}))


@pytest.mark.parametrize(
    "data", [f'{{"{CANARY}":}}', f'{{"{CANARY}":1,"{CANARY}":1}}', f'"{CANARY}', f"[{CANARY}]"]
)
def test_no_error_tells_what_was_no_json(data: str) -> None:
    """The same for input that is not even JSON."""
    _assert_silent("escrow", data.encode())


def test_no_error_tells_a_number_that_was_refused() -> None:
    """A fraction and an integer that is too large are refused without repeating their digits."""
    for digits in ("271828182845.9", "27182818284590452353"):
        with pytest.raises(MalformedStatement) as caught:
            parse("escrow", Place("escrow", ("issued_at",)).changed(1).replace(b": 1,", f": {digits},".encode()))
        assert "2718" not in str(caught.value)


def test_printable_leaves_nothing_that_a_statement_must_not_hold() -> None:
    """Messages to people pass the same rule as the text of statements."""
    assert printable("a\nb\ud800c\x9fdé") == "a?b?c?dé"
    Rejection(**BODIES["rejection"].model_dump() | {"message": printable("".join(CONTROLS + SURROGATES))})


# ---- ids and properties ----


def test_new_ids_are_uuid_version_7_and_differ() -> None:
    """A thousand fresh ids pass the format of ids and are distinct."""
    made = ids_of(1000)
    assert len(set(made)) == 1000
    place = Place("invitation", ("id",))
    for each in made:
        parse("invitation", place.changed(each))


@given(
    st.sampled_from(EVERYWHERE),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=70)
        | st.binary(max_size=40).map(lambda raw: b64encode(raw).decode()),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
        max_leaves=8,
    ),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine
def test_a_body_is_read_exactly_or_refused(place: Place, value: object) -> None:
    """Whatever stands anywhere in a body, it is refused with our errors or read back as exactly those values."""
    data = place.changed(value)
    try:
        read = parse(place.kind, data)
    except PermanentError:
        return
    assert json.loads(read.to_bytes()) == json.loads(data)


def test_models_are_frozen() -> None:
    """A verified body cannot be changed afterwards."""
    for body in BODIES.values():
        with pytest.raises(ValueError, match="frozen"):
            body.authority = "other.example.org"  # type: ignore[misc]  # which is the point


def test_every_kind_of_body_is_covered() -> None:
    """The bodies above are all bodies there are, so that none escapes the tests of this module."""
    assert {type(body) for body in BODIES.values()} == {
        each for each in _concrete(Body) if each.__module__ == Body.__module__
    }
    assert {Enrolment, Invitation, RosterBody} < {type(body) for body in BODIES.values()}


def _concrete(model: type[Body]) -> set[type[Body]]:
    below = set().union(*map(_concrete, model.__subclasses__())) if model.__subclasses__() else set()
    return below | ({model} if "TYPE" in vars(model) else set())
