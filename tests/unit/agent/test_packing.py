import pytest
from tests.support.agents import MATERIAL, NOW, key

from strongroom import limits
from strongroom.blobs import BlobContext, check_fingerprint, open_material
from strongroom.crypto.secret import Secret
from strongroom.crypto.signing import SigningKey
from strongroom.errors import LimitExceeded, MalformedStatement
from strongroom.messages import Escrow, parse_body
from strongroom.statements import parse_envelope
from strongroom.testing import FakeAuthority
from strongroom_agent.packing import KeyToEscrow, pack
from strongroom_agent.spool import Packed

SIGNER = SigningKey.generate()


def packed(authority: FakeAuthority, *keys: KeyToEscrow) -> list[Packed]:
    return pack(keys, principal="laptop-0417", roster=authority.roster, signing_key=SIGNER, now=NOW)


def body(one: Packed) -> Escrow:
    return parse_body(parse_envelope(one.envelope), Escrow)


def test_a_packed_key_opens_in_its_place_and_is_the_one_that_was_signed_for(authority: FakeAuthority) -> None:
    """Blob, context, fingerprint and signature are what the authority will check."""
    [one] = packed(authority, key())
    statement, escrow = parse_envelope(one.envelope), body(one)
    statement.verify_signature(SIGNER.public_key, SIGNER.key_id)
    assert (one.id, one.digest) == (escrow.id, statement.digest)
    [record] = escrow.records
    sealing_key = authority.sealing_keys[0]
    context = BlobContext(authority.name, "laptop-0417", record.id, sealing_key.kid, sealing_key.suite)
    opened = open_material(record.blob, context, sealing_key)
    check_fingerprint(opened, authority.name, "laptop-0417", record.id, record.fingerprint)
    assert opened.material.expose() == MATERIAL


def test_what_goes_into_the_spool_holds_no_key_material_and_no_salt(authority: FakeAuthority) -> None:
    """Only sealed blobs and what the owner signed; the salt would let a thief try guesses of a weak key."""
    [one] = packed(authority, key())
    sealing_key = authority.sealing_keys[0]
    record = body(one).records[0]
    context = BlobContext(authority.name, "laptop-0417", record.id, sealing_key.kid, sealing_key.suite)
    opened = open_material(record.blob, context, sealing_key)
    for secret in (opened.material, opened.salt):
        assert secret.expose() not in one.envelope
        assert secret.expose() not in body(one).to_bytes()
        assert secret.expose().hex() not in repr(one)


def test_the_facts_beside_a_statement_are_those_that_were_signed(authority: FakeAuthority) -> None:
    """The spool's index never says something else than the statement."""
    wanted = KeyToEscrow(
        material=Secret(b"k"),
        name="disk é",
        kind="disk-key",
        description="root volume",
        serial_number="C02XYZ",
        algorithm="AES-256-XTS",
        labels={"site": "Oslo"},
    )
    [one] = packed(authority, wanted)
    [facts], [record] = one.records, body(one).records
    for member in (
        "id",
        "name",
        "kind",
        "description",
        "serial_number",
        "algorithm",
        "fingerprint",
        "kid",
        "labels",
    ):
        assert getattr(facts, member) == getattr(record, member), member
    assert (facts.name, facts.labels) == ("disk é", {"site": "Oslo"})


@pytest.mark.parametrize(("count", "statements"), [(1, [1]), (256, [256]), (257, [256, 1])])
def test_a_statement_takes_as_many_records_as_the_limit_allows(
    authority: FakeAuthority, count: int, statements: list[int]
) -> None:
    """One more begins another statement."""
    assert [len(one.records) for one in packed(authority, *[key()] * count)] == statements


def test_large_keys_are_split_below_the_body_limit_and_none_is_left_out(authority: FakeAuthority) -> None:
    """Every body is within the limit, and could not have taken one more."""
    largest = key(b"k" * limits.KEY_MATERIAL_BYTES_MAX)
    all_ = packed(authority, *[largest] * 25)
    sizes = [len(parse_envelope(one.envelope).body) for one in all_]
    assert sum(len(one.records) for one in all_) == 25
    assert all(size <= limits.BODY_BYTES_MAX for size in sizes)
    one_record = sizes[0] // len(all_[0].records)
    assert all(size + one_record > limits.BODY_BYTES_MAX for size in sizes[:-1])


def test_the_last_of_several_keys_of_one_name_is_the_newest(authority: FakeAuthority) -> None:
    """Within one second, the record id decides."""
    [one] = packed(authority, *[key(bytes([n])) for n in range(1, 20)])
    ids = [record.id for record in body(one).records]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("size", [0, limits.KEY_MATERIAL_BYTES_MAX + 1])
def test_key_material_beyond_its_limit_is_refused_before_anything_is_signed(
    authority: FakeAuthority, size: int
) -> None:
    """Nothing is packed, also of the good keys beside it."""
    with pytest.raises(LimitExceeded):
        packed(authority, key(), key(b"k" * size))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "n" * (limits.NAME_CHARACTERS_MAX + 1)),
        ("name", "tab\there"),
        ("kind", "Disk"),
        ("description", "d" * (limits.DESCRIPTION_CHARACTERS_MAX + 1)),
        ("serial_number", "s" * (limits.SERIAL_NUMBER_CHARACTERS_MAX + 1)),
        ("algorithm", "a" * (limits.ALGORITHM_CHARACTERS_MAX + 1)),
        ("labels", {"l" * (limits.LABEL_NAME_CHARACTERS_MAX + 1): "v"}),
        ("labels", {str(n): "v" for n in range(limits.LABELS_MAX + 1)}),
    ],
)
def test_a_field_beyond_its_limit_is_refused_by_name(authority: FakeAuthority, field: str, value: object) -> None:
    """Before it reaches the spool."""
    fields = {"material": Secret(b"k"), "name": "disk", "kind": "disk-key", field: value}
    with pytest.raises((LimitExceeded, MalformedStatement), match=field):
        packed(authority, KeyToEscrow(**fields))  # type: ignore[arg-type]


def test_a_key_to_escrow_does_not_show_its_material() -> None:
    """Its repr shows the length only."""
    assert MATERIAL.decode() not in repr(key())
