"""How bodies are read: every refusal of SPEC 1.5 in every kind of body, one spelling each, silence about inputs."""

import json
import traceback
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.bodies import BODIES, DOCUMENTS, EVERYWHERE, Path, Place, ids_of, parse

from strongroom import audits, limits, mandates, messages
from strongroom.errors import LimitExceeded, MalformedStatement, PermanentError
from strongroom.fields import Body, media_type, parse_body, printable
from strongroom.messages import Escrow, Rejection
from strongroom.statements import Statement, canonical_json

OBJECTS = [p for p in EVERYWHERE if isinstance(p.value(), dict) and p.path[-1:] != ("labels",)]
MEMBERS = [p for p in EVERYWHERE if p.path and isinstance(p.path[-1], str) and p.path[-2:-1] != ("labels",)]
RECORD: Path = ("records", 0)


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


LATER: dict[tuple[str, str], object] = {
    ("roster", "former"): [],
    ("roster", "transport_keys"): [],
    ("roster", "root_changes"): [],
    ("escrow", "supersedes"): [],
    ("escrow", "wrapping"): None,
    ("request by ids", "unwrap"): False,
    ("request by ids", "destination"): None,
    ("request by name", "unwrap"): False,
    ("request by name", "destination"): None,
    ("request to move", "unwrap"): False,
    ("request to move", "destination"): None,
    ("release", "wrapping"): None,
    ("release", "unwrapped"): None,
    ("release", "moved_fingerprint"): None,
    ("listing", "wrapping"): None,
}
"""Members that were thought of after statements had been signed, and what it means that one is missing."""


@pytest.mark.parametrize(
    "place",
    [p for p in MEMBERS if "policy" not in p.path[:-1] and (p.kind, p.path[-1]) not in LATER],
    ids=str,
)
def test_a_missing_member_is_refused_at_every_level(place: Place) -> None:
    """SPEC 1.5: every member must be there, also one that may be null; the first missing one is named."""
    with pytest.raises(MalformedStatement, match=rf"{place.path[-1]}: Field required"):
        parse(place.kind, place.changed(...))


@pytest.mark.parametrize("place", [p for p in MEMBERS if (p.kind, p.path[-1]) in LATER], ids=str)
def test_a_member_that_came_later_may_be_missing(place: Place) -> None:
    """What was signed before there was such a member says none, nothing or no (SPEC 2.1, 4.1, 5.1 and 5.3)."""
    read: Any = parse(place.kind, place.changed(...)).model_dump(mode="json")
    for step in place.path:
        read = read[step]
    assert read == LATER[place.kind, str(place.path[-1])]


NULLABLE = {
    "roster: previous",
    "roster: policy.expected.0.label",
    "escrow: records.0.wrapping",
    "request by ids: destination",
    "request by name: destination",
    "request to move: name",
    "request to move: destination",
    "release: records.0.wrapping",
    "release: records.0.unwrapped",
    "release: records.0.moved_fingerprint",
    "listing: records.0.wrapping",
    "revocation: key",
    "revocation of a key: key",
    "listing-request: after",
    "docket-request: principal",
    "docket-request: request",
    "docket-request: after",
    "listing: records.0.proof",
    "listing: records.0.proven_at",
    "listing: records.0.code",
    "listing: records.0.attested_at",
    "listing: records.0.replace_by",
    "listing: records.0.disclosure",
    "listing: records.0.disclosure.reason",
    "listing: pending.0.reason",
    "listing: next",
    "docket: entries.0.request",
    "docket: entries.0.enrolment",
    "docket: entries.0.roster",
    "docket: entries.0.code",
    "docket: entries.0.decided_at",
    "docket: entries.0.denial",
    "docket: next",
    "coverage-request: after",
    "coverage: proving.oldest_at",
    "coverage: gaps.0.name",
    "coverage: gaps.0.record",
    "coverage: gaps.0.since",
    "coverage: gaps.0.code",
    "coverage: next",
    "log-page: checkpoint",
    "log-page: entries.0.leaf",
    "log-page: entries.0.nodes.0",
    "log-page: entries.0.nodes.1",
    "rejection: request",
    "rejection: retry_at",
    # Null in their good body already: the other one of the pair is given.
    "invitation: prefix",
    "invitation of many: principal",
    "request by ids: name",
    "request by name: records",
}
SCALARS: list[object] = [None, True, False, 7, "text\n", [], [[]], {}, {"a": {}}]


@pytest.mark.parametrize("place", EVERYWHERE, ids=str)
def test_a_value_of_another_json_type_is_refused(place: Place) -> None:
    """Nothing is coerced: no number for a text, no text for a number, no 1 for true, no null for anything."""
    good = place.value()
    for value in SCALARS:
        if type(value) is type(good) or (value is None and str(place) in NULLABLE):
            continue
        with pytest.raises(PermanentError):
            parse(place.kind, place.changed(value))


def test_what_may_be_null_is_read_when_it_is() -> None:
    """Every place of the list above is one, and takes null as it takes its value."""
    places = [place for place in EVERYWHERE if str(place) in NULLABLE]
    assert len(places) == len(NULLABLE)
    for place in places:
        parse(place.kind, place.changed(None))


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
BAD_FORMATS: dict[Place, list[Any]] = {
    Place("escrow", ("principal",)): BAD_PRINCIPALS,
    Place("escrow", ("id",)): BAD_IDS,
    Place("escrow", (*RECORD, "id")): BAD_IDS,
    Place("escrow", (*RECORD, "kind")): ["", "k" * 65, "Key", "session_key", "key\n"],
    Place("escrow", (*RECORD, "fingerprint")): ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 64 + "\n"],
    Place("escrow", (*RECORD, "kid")): ["", "0" * 31, "0" * 33, "A" * 32, "0" * 32 + "\n"],
    Place("escrow", (*RECORD, "suite")): ["", "X-WING", "x-wing\n", "rot13"],
    Place("escrow", (*RECORD, "blob")): ["YR==", "YQ", "YWJj\n", "_-8=", "YQ==YQ==", "ü"],
    Place("escrow", ("authority",)): ["", "ab", "a" * 129, "Backup", "-ab", "a/b", "a b", "abc\n"],
    Place("escrow", (*RECORD, "labels")): [{"label": 1}, {"label": None}, {"label": []}, [["label", "text"]]],
    Place("enrolment", ("signing_key",)): [b64encode(bytes(length)).decode() for length in (0, 31, 33)],
    Place("request by ids", ("requester_kind",)): ["", "root", "OFFICER"],
}


@pytest.mark.parametrize("place", BAD_FORMATS, ids=str)
def test_a_value_out_of_format_is_malformed(place: Place) -> None:
    """Names, ids, digests, keys, suites, kinds and base64 have one spelling; the message names the field."""
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
    Place("revocation", ("reason",)),
    Place("approval", ("reason",)),
    Place("denial", ("reason",)),
    Place("release", (*RECORD, "description")),
    Place("listing", (*RECORD, "name")),
    Place("listing", (*RECORD, "disclosure", "reason")),
    Place("listing", ("pending", 0, "reason")),
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
        for labels in ({f"a{character}b": "value"}, {"colour": f"a{character}b"}):
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
    """The bodies of the tests are all bodies there are, so that none escapes the tests of this module."""
    kernel = {mandates.__name__, messages.__name__, audits.__name__}
    assert {type(body) for body in BODIES.values()} == {
        each for each in _concrete(Body) if each.__module__ in kernel
    }


def test_the_media_types_are_those_of_the_table() -> None:
    """SPEC section 1 lists every type of statement, and no other exists."""
    nouns = {
        each.TYPE.removeprefix("application/vnd.strongroom.").removesuffix(".v1+json") for each in _concrete(Body)
    }
    assert nouns == {
        *("roster", "root-change", "invitation", "enrolment", "escrow", "request"),
        *("approval", "denial", "revocation"),
        *("listing-request", "docket-request", "coverage-request", "log-page-request", "attestation"),
        *("listing", "docket", "coverage", "log-page", "release", "rejection"),
    }


def _concrete(model: type[Body]) -> set[type[Body]]:
    below = set().union(*map(_concrete, model.__subclasses__())) if model.__subclasses__() else set()
    return below | ({model} if "TYPE" in vars(model) else set())
