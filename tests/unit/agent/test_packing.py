from dataclasses import replace
from itertools import count

import pytest
from tests.support.agents import MATERIAL, NOW, Clock, key
from tests.support.cms import VECTORS

from strongroom import limits
from strongroom.blobs import BlobContext, check_fingerprint, open_material
from strongroom.crypto.secret import Secret
from strongroom.crypto.signing import SigningKey
from strongroom.errors import LimitExceeded, MalformedStatement
from strongroom.fields import parse_body
from strongroom.limits import CLOCK_SKEW_SECONDS
from strongroom.messages import Escrow, WrappedFormat
from strongroom.statements import parse_envelope
from strongroom.testing import FakeAuthority
from strongroom_agent import packing
from strongroom_agent.agent import Agent
from strongroom_agent.packing import KeyToEscrow, fitting, pack
from strongroom_agent.spool import Packed
from strongroom_agent.wrapping import Wrapped

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


# ---- the time of issue ----


def spooled(agent: Agent) -> list[int]:
    return [
        parse_body(parse_envelope(agent._spool.message(id_)[0]), Escrow).issued_at for id_ in agent._spool.spooled()
    ]


@pytest.mark.parametrize("back", [1, 30, 58])
async def test_the_newest_key_of_a_name_stays_the_newest_when_the_clock_steps_back(
    agent: Agent, clock: Clock, back: int
) -> None:
    """The signed times go on, the authority takes them, and `recover` brings the newest."""
    await agent.escrow([key(b"old")])
    clock.seconds -= back
    for material in (b"newer", b"newest"):
        assert (await agent.escrow([key(material)])).stored == 1
    recovery = await agent.recover(name="disk")
    assert recovery.keys[0].material.expose() == b"newest"
    assert [entry.issued_at for entry in recovery.history] == [NOW + 2, NOW + 1, NOW]


async def test_a_clock_that_was_wildly_wrong_holds_nothing_up(agent: Agent, clock: Clock) -> None:
    """Its times are passed over, and later steps back keep the order again."""
    clock.seconds += 86_400
    await agent.escrow([key()], wait_seconds=0)
    clock.seconds = NOW
    await agent.escrow([key()], wait_seconds=0)
    clock.seconds -= 5
    await agent.escrow([key()], wait_seconds=0)
    assert spooled(agent) == [NOW + 86_400, NOW, NOW + 1]


async def test_a_time_of_issue_is_never_ahead_by_more_than_the_skew_that_is_allowed(
    agent: Agent, clock: Clock
) -> None:
    """However many keys follow a step back."""
    await agent.escrow([key()], wait_seconds=0)
    clock.seconds -= 58
    for _ in range(4):
        await agent.escrow([key()], wait_seconds=0)
    assert max(spooled(agent)) == NOW - 58 + CLOCK_SKEW_SECONDS


async def test_keys_of_one_second_keep_its_time_while_their_ids_go_on(agent: Agent) -> None:
    """A burst does not run ahead of the clock; the ids tell which is newer."""
    for _ in range(3):
        await agent.escrow([key()], wait_seconds=0)
    assert spooled(agent) == [NOW] * 3


async def test_ids_that_went_back_within_a_second_get_a_later_time(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The id alone would make the older key the newest."""
    await agent.escrow([key()], wait_seconds=0)
    earlier = (f"00000000-0000-7000-8000-{number:012x}" for number in count())
    monkeypatch.setattr(packing, "new_id", lambda: next(earlier))
    await agent.escrow([key()], wait_seconds=0)
    assert spooled(agent) == [NOW, NOW + 1]


# ---- bytes that are of a kind ----

PASSWORD = b"-".join([b"720885", b"000000", b"000011", b"123453"] * 2)


@pytest.mark.parametrize(
    ("kind", "material", "algorithm"),
    [
        ("pkcs8", (VECTORS / "pkcs8" / "rsa-3072.pem").read_bytes(), "RSA 3072"),
        ("openssh", (VECTORS / "openssh" / "ed25519.key").read_bytes(), "Ed25519"),
        ("recovery-password-bitlocker", PASSWORD, ""),
        ("cms", (VECTORS / "cms" / "aes-256.der").read_bytes(), "CMS, AES-256-CBC"),
        ("volume-key", (VECTORS / "cms" / "volume-key-default.packet").read_bytes(), "volume_key"),
        ("raw", b"\0", ""),
        ("disk-key", b"\0", ""),
    ],
)
def test_what_its_kind_says_of_a_key_becomes_its_algorithm(
    authority: FakeAuthority, kind: str, material: bytes, algorithm: str
) -> None:
    """Unless the owner says it; the bytes are packed as they are, and wrapped keys of others as opaque bytes."""
    given = KeyToEscrow(material=Secret(material), name="k", kind=kind)
    [one] = packed(authority, given)
    [record] = body(one).records
    assert record.algorithm.startswith(algorithm)
    assert bool(record.algorithm) == bool(algorithm)
    assert record.wrapping is None
    [own] = packed(authority, replace(given, algorithm="my own word"))
    assert body(own).records[0].algorithm == "my own word"


@pytest.mark.parametrize(
    ("kind", "material", "words"),
    [
        ("pkcs8", (VECTORS / "pkcs8" / "rsa-3072.pem").read_bytes()[:-60], "PEM"),
        ("openssh", b"ssh-ed25519 AAAA", "kind openssh: PEM"),
        ("age-identity", b"AGE-SECRET-KEY-1QQQQ", "mistyped"),
        ("recovery-password-bitlocker", PASSWORD.replace(b"123453", b"123454"), "group 4 is mistyped"),
        ("cms", b"\x30\x80", "."),
        ("volume-key", b"\0volume_key\7x", "format"),
    ],
)
def test_bytes_that_are_not_of_their_kind_are_refused_without_being_quoted(
    authority: FakeAuthority, kind: str, material: bytes, words: str
) -> None:
    """Nothing is packed, also of the good keys beside it; what is wrong is said in words."""
    with pytest.raises((MalformedStatement, LimitExceeded), match=words) as caught:
        packed(authority, key(), KeyToEscrow(material=Secret(material), name="k", kind=kind))
    for secret in (b"123454", b"QQQQ", material[-30:]):
        assert secret not in caught.value.message.encode()


def test_keys_that_are_what_they_should_be_are_parted_from_the_others(authority: FakeAuthority) -> None:
    """The reason stands with the name."""
    bad = KeyToEscrow(material=Secret(b"x"), name="mail", kind="openssh")
    mistyped = KeyToEscrow(material=Secret(b"x"), name="web", kind="opensh")
    good, refused = fitting([key(), bad, mistyped, key(name="other")], authority.roster)
    assert [each.name for each in good] == ["disk", "other"]
    assert refused.keys() == {"mail", "web"}
    assert refused["mail"].message.startswith("kind openssh: ")
    assert refused["web"].code == "usage"


def test_what_is_not_of_its_format_is_not_told_of_other_kinds(authority: FakeAuthority) -> None:
    """The format is what is wrong; the kind was never said."""
    wrapped = KeyToEscrow(material=Secret(b"x"), name="k", kind="cms", wrapped=Wrapped(WrappedFormat.CMS))
    with pytest.raises(MalformedStatement, match=r"^format cms: ") as caught:
        packed(authority, wrapped)
    assert "raw" not in (caught.value.hint or "")
