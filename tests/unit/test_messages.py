"""Statements about keys, and their answers: every limit at its edge, formats, rules between members (SPEC 4-6)."""

from typing import Any

import pytest
from tests.support.authority import escrow_body, record
from tests.support.bodies import DOCUMENTS, Limit, Path, Place, copies_of, ids_of, parse, text_of

from strongroom import limits
from strongroom.errors import MalformedStatement
from strongroom.fields import new_id
from strongroom.messages import Request
from strongroom.statements import canonical_json


def labels_of(count: int) -> dict[str, str]:
    """So many labels."""
    return {f"label {number}": "" for number in range(count)}


RECORD: Path = ("records", 0)
ENTRY: Path = ("entries", 0)
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
        lambda length: {"colour": text_of(length)},
        0,
        limits.LABEL_VALUE_CHARACTERS_MAX,
        "characters",
    ),
    Limit(Place("escrow", ("principal",)), lambda length: "p" * length, 3, 64, "characters"),
    Limit(Place("request by ids", ("requester",)), lambda length: "p" * length, 3, 64, "characters"),
    Limit(Place("request by ids", ("records",)), ids_of, 1, limits.RECORDS_MAX, "entries"),
    Limit(Place("request by ids", ("reason",)), text_of, 0, limits.REASON_CHARACTERS_MAX, "characters"),
    Limit(Place("request by name", ("name",)), text_of, 1, limits.NAME_CHARACTERS_MAX, "characters"),
    Limit(Place("release", ("records",)), copies_of("release", "records"), 1, limits.RECORDS_MAX, "entries"),
    Limit(
        Place("listing", ("records",)), copies_of("listing", "records"), 0, limits.LISTING_RECORDS_MAX, "entries"
    ),
    Limit(
        Place("listing", ("pending",)), copies_of("listing", "pending"), 0, limits.LISTING_PENDING_MAX, "entries"
    ),
    Limit(Place("docket", ("entries",)), copies_of("docket", "entries"), 0, limits.DOCKET_ENTRIES_MAX, "entries"),
    Limit(
        Place("docket", ("invitations",)),
        copies_of("docket", "invitations"),
        0,
        limits.DOCKET_INVITATIONS_MAX,
        "entries",
    ),
    Limit(
        Place("docket", (*ENTRY, "approvals")), lambda count: ["YQ=="] * count, 0, limits.SIGNATURES_MAX, "entries"
    ),
    Limit(Place("docket", (*ENTRY, "needed")), int, 0, limits.SIGNATURES_MAX, ""),
    Limit(Place("docket", (*ENTRY, "log_index")), int, 0, limits.INTEGER_MAX, ""),
    *(
        Limit(Place(answer, ("roster_version",)), int, 1, limits.INTEGER_MAX, "")
        for answer in ("release", "listing", "docket", "coverage", "log-page", "rejection")
    ),
    Limit(Place("escrow", (*RECORD, "supersedes")), ids_of, 0, limits.SUPERSEDES_MAX, "entries"),
    Limit(
        Place("listing", ("unreadable",)),
        copies_of("listing", "unreadable"),
        0,
        limits.LISTING_RECORDS_MAX,
        "entries",
    ),
    Limit(Place("listing", ("proofs",)), copies_of("listing", "proofs"), 0, limits.LISTING_RECORDS_MAX, "entries"),
    Limit(
        Place("attestation", ("records",)),
        copies_of("attestation", "records"),
        1,
        limits.ATTESTED_RECORDS_MAX,
        "entries",
    ),
    Limit(Place("coverage-request", ("silent_days",)), int, 1, limits.SILENT_DAYS_MAX, ""),
    Limit(Place("coverage", ("gaps",)), copies_of("coverage", "gaps"), 0, limits.COVERAGE_GAPS_MAX, "entries"),
    Limit(
        Place("log-page", ("entries",)), copies_of("log-page", "entries"), 0, limits.LOG_PAGE_LEAVES_MAX, "entries"
    ),
    Limit(Place("log-page", (*ENTRY, "rows")), ids_of, 0, 2 * limits.RECORDS_MAX, "entries"),
    Limit(Place("rejection", ("message",)), text_of, 0, limits.REJECTION_CHARACTERS_MAX, "characters"),
]


@pytest.mark.parametrize("limit", LIMITS, ids=str)
def test_the_edges_of_a_limit_are_accepted(limit: Limit) -> None:
    """The smallest and the largest size are taken."""
    limit.assert_accepts(limit.smallest)
    limit.assert_accepts(limit.largest)


@pytest.mark.parametrize("limit", [each for each in LIMITS if each.largest < limits.INTEGER_MAX], ids=str)
def test_one_beyond_a_limit_is_refused_naming_field_and_limit(limit: Limit) -> None:
    """One more than the largest size is refused as `limit_exceeded`, and the message says where and what holds."""
    limit.assert_refuses(limit.largest + 1)


@pytest.mark.parametrize("limit", [each for each in LIMITS if each.smallest > 0], ids=str)
def test_one_below_a_limit_is_refused_naming_field_and_limit(limit: Limit) -> None:
    """One less than the smallest size is refused in the same way."""
    limit.assert_refuses(limit.smallest - 1)


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

BAD_IDS = ["", "01890a5d-ac96-474b-bcce-b302099a8057", "01890a5d-ac96-774b-bcce-b302099a8057\n"]
BAD_DIGESTS = ["", "0" * 63, "0" * 65, "A" * 64, "0" * 64 + "\n"]
BAD_KINDS = ["", "root", "OFFICER"]
BAD_FORMATS: dict[Place, list[Any]] = {
    Place("request by ids", ("requester",)): ["Laptop", "lap_top", "laptop\n", "../etc"],
    Place("request by ids", ("records", 0)): BAD_IDS,
    Place("request by ids", ("recipient_suite",)): ["", "X-WING", "rot13"],
    Place("request by ids", ("recipient_key",)): ["YR==", "YWJj\n", "_-8="],
    Place("listing-request", ("after",)): BAD_IDS,
    Place("docket-request", ("requester_kind",)): BAD_KINDS,
    Place("docket-request", ("request",)): BAD_IDS,
    Place("docket-request", ("after",)): BAD_IDS,
    Place("docket-request", ("pending",)): [0, 1, "true", None],
    Place("release", ("request_digest",)): BAD_DIGESTS,
    Place("listing", (*RECORD, "state")): ["", "lost"],
    Place("listing", (*RECORD, "disclosure", "requester_kind")): BAD_KINDS,
    Place("listing", ("pending", 0, "digest")): BAD_DIGESTS,
    Place("listing", ("pending", 0, "requester_kind")): BAD_KINDS,
    Place("docket", (*ENTRY, "digest")): BAD_DIGESTS,
    Place("docket", (*ENTRY, "request")): ["YR==", "YQ", "YWJj\n"],
    Place("docket", (*ENTRY, "approvals", 0)): ["YR==", "YQ", "YWJj\n"],
    Place("docket", (*ENTRY, "state")): ["", "PENDING", "waiting"],
    Place("docket", (*ENTRY, "code")): ["", "Denied", "c" * 65, "two words"],
    Place("listing", (*RECORD, "code")): ["", "Denied", "c" * 65],
    Place("listing", ("unreadable", 0, "id")): BAD_IDS,
    Place("listing", ("proofs", 0, "leaf")): ["YR==", "YQ"],
    Place("attestation", ("records", 0, "fingerprint")): BAD_DIGESTS,
    Place("attestation", ("records", 0, "matches")): [0, 1, "true", None],
    Place("coverage-request", ("requester_kind",)): BAD_KINDS,
    Place("coverage", ("gaps", 0, "state")): ["", "proven", "MISSING"],
    Place("log-page-request", ("log",)): ["", "Escrow", "both"],
    Place("log-page", (*ENTRY, "nodes", 0)): ["YQ==", "AAAA"],
    Place("rejection", ("digest",)): BAD_DIGESTS,
    Place("rejection", ("code",)): ["", "Malformed", "c" * 65, "two words"],
}


@pytest.mark.parametrize("place", BAD_FORMATS, ids=str)
def test_a_value_out_of_format_is_malformed(place: Place) -> None:
    """Names, ids, digests, suites, states, codes and base64 have one spelling; the message names the field."""
    for value in BAD_FORMATS[place]:
        with pytest.raises(MalformedStatement) as caught:
            parse(place.kind, place.changed(value))
        assert caught.value.message.startswith(".".join(map(str, place.path)))


@pytest.mark.parametrize("state", ["pending", "expired", "released", "refused", "denied"])
def test_the_states_of_a_request_are_those_of_the_specification(state: str) -> None:
    """SPEC 5.8 names five."""
    parse("docket", Place("docket", (*ENTRY, "state")).changed(state))


@pytest.mark.parametrize("state", ["stored", "disclosed"])
def test_the_states_of_a_record_are_those_of_the_specification(state: str) -> None:
    """SPEC 5.4 names two."""
    parse("listing", Place("listing", (*RECORD, "state")).changed(state))


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


@pytest.mark.parametrize("reason", ["", " ", "\u2003 \xa0"], ids=ascii)
def test_an_officer_gives_a_reason_and_a_principal_need_not(reason: str) -> None:
    """SPEC 5.1: whoever approves, denies or audits an officer's request has to read why; blanks are no reason."""
    document = DOCUMENTS["request by ids"] | {"reason": reason}
    read = parse("request by ids", canonical_json(document))
    assert isinstance(read, Request)
    assert read.reason == reason
    with pytest.raises(MalformedStatement, match="reason: an officer must give one"):
        parse("request by ids", canonical_json(document | {"requester_kind": "officer"}))
    parse("request by ids", canonical_json(document | {"requester_kind": "officer", "reason": "x" + reason}))
