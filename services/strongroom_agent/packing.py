"""From keys to signed statements: each key is judged and sealed at once, and only sealed blobs go on."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from strongroom.blobs import BlobContext, seal_material
from strongroom.crypto.secret import Secret
from strongroom.crypto.signing import SigningKey
from strongroom.errors import LimitExceeded, MalformedStatement, PermanentError
from strongroom.fields import new_id, validated
from strongroom.formats import kinds
from strongroom.limits import BODY_BYTES_MAX, CLOCK_SKEW_SECONDS, RECORDS_MAX
from strongroom.messages import Escrow, Record, Wrapping
from strongroom.roster import Roster
from strongroom.statements import Statement, canonical_json
from strongroom_agent.spool import Packed, RecordFacts, Spool
from strongroom_agent.wrapping import Wrapped, identified


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyToEscrow:
    """One key to hand over: the secret, 1 to 65,536 bytes, and what people will know it by (limits: SPEC 11).

    kind: a word, or one of `formats.kinds`, whose bytes are judged. algorithm: when empty, what is found in the
    bytes where their kind or format says it. wrapped: what other programs wrapped for the authority, so that
    officers can have it opened; None for everything that is only to be kept as it is. supersedes: ids of at most
    16 older records of this host whose place it takes (SPEC 4.5).
    """

    material: Secret
    name: str
    kind: str
    description: str = ""
    serial_number: str = ""
    algorithm: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    supersedes: Sequence[str] = ()
    wrapped: Wrapped | None = None


@dataclass(frozen=True, slots=True)
class _Judged:
    key: KeyToEscrow
    algorithm: str
    wrapping: Wrapping | None


def judge(key: KeyToEscrow, roster: Roster) -> _Judged:
    """Look whether the bytes of a key are what its owner says they are; nothing of them is ever quoted.

    Raises MalformedStatement, LimitExceeded, BlobInvalid or KeyUnknown for bytes that are not of their kind, or not
    wrapped as is said (see `wrapping.identified`); UsageError where more has to be said, and for a mistyped kind.
    """
    try:
        algorithm = kinds.describe(key.kind, key.material)
    except (MalformedStatement, LimitExceeded) as error:
        if key.wrapped is not None and key.kind == key.wrapped.format:
            what, hint = "format", "see to the bytes, or say the format that they have"
        else:
            what, hint = "kind", "see to the bytes, or say another kind: `raw` takes any"
        raise type(error)(f"{what} {key.kind}: {error.message}", hint=hint) from None
    if key.wrapped is None:
        return _Judged(key, key.algorithm or algorithm, None)
    found = identified(key.material, key.wrapped, roster)
    return _Judged(key, key.algorithm or found.algorithm, found.wrapping)


def fitting(keys: Iterable[KeyToEscrow], roster: Roster) -> tuple[list[KeyToEscrow], dict[str, PermanentError]]:
    """Part keys that can be packed from those that are not what they should be, the latter by name."""
    good: list[KeyToEscrow] = []
    bad: dict[str, PermanentError] = {}
    for key in keys:
        try:
            judge(key, roster)
        except PermanentError as error:
            bad[key.name] = error
        else:
            good.append(key)
    return good, bad


def issue_time(spool: Spool, now: int) -> int:
    """Return the time of issue of what is escrowed at `now`, so that the newest key of a name stays the newest.

    The authority goes by signed times (SPEC 4.4), and a clock may step back. So this is a second after the newest
    statement of this spool while the clock is behind that one, or within its second but with ids that went back.
    It is never further ahead of the clock than the authority's allowance for skew, 60 s: times beyond that were
    given by a clock that was wrong, and are passed over so that they hold nothing up. If the authority's clock is
    behind this one as well, it may answer `expired`; the statement then stays spooled until time has caught up.
    """
    newest = spool.newest(before=now + CLOCK_SKEW_SECONDS)
    if newest is None or newest[0] < now or (newest[0] == now and newest[1] < new_id()):
        return now
    return newest[0] + 1


def pack(
    keys: Sequence[KeyToEscrow],
    *,
    principal: str,
    roster: Roster,
    signing_key: SigningKey,
    now: int,
    compared: Collection[str] = (),
) -> list[Packed]:
    """Seal keys to the roster's active sealing key and sign them in as few statements as the limits allow.

    Among keys of the same name, the last counts as the newest. Arguments: `compared` are the names whose salts go
    with the statements, because the live key can be read here to be compared with the record. Raises, before
    anything is sealed, what `judge` raises for the first key that is not what it should be; LimitExceeded or
    MalformedStatement naming the field of the first key that breaks a limit; KeyUnknown for a roster whose sealing
    key is malformed.
    """
    judged = [judge(key, roster) for key in keys]
    # The ids decide which of several records of one name and second is the newest (SPEC 4.4).
    ids = sorted(new_id() for _ in keys)
    salts: dict[str, Secret] = {}
    records = (
        _seal(each, id_, principal, roster, salts if each.key.name in compared else None)
        for each, id_ in zip(judged, ids, strict=True)
    )
    return signed(
        records,
        authority=roster.body.authority,
        principal=principal,
        signing_key=signing_key,
        issued_at=now,
        salts=salts,
    )


def signed(
    records: Iterable[Record],
    *,
    authority: str,
    principal: str,
    signing_key: SigningKey,
    issued_at: int,
    salts: Mapping[str, Secret],
) -> list[Packed]:
    """Sign sealed records in as few statements as the limits allow.

    Arguments: `salts` of the fingerprints, by record id, of those that shall be compared with the live key; it is
    read after each record was taken.
    """
    envelope_free = canonical_json(
        {"authority": authority, "id": new_id(), "issued_at": issued_at, "principal": principal, "records": []}
    )
    return [
        _sign(
            Escrow(authority=authority, id=new_id(), issued_at=issued_at, principal=principal, records=group),
            signing_key,
            salts,
        )
        for group in _groups(records, BODY_BYTES_MAX - len(envelope_free))
    ]


def _seal(
    judged: _Judged, record_id: str, principal: str, roster: Roster, salts: dict[str, Secret] | None
) -> Record:
    key = judged.key
    recipient = roster.active_sealing_key()
    context = BlobContext(roster.body.authority, principal, record_id, recipient.kid, recipient.suite)
    sealed = seal_material(key.material, context, recipient.public_key)
    if salts is not None:
        # With it whoever reads this home may try guesses of a weak key (SPEC 3.5). So it is kept only where the key
        # itself lies open to the same reader.
        salts[record_id] = sealed.salt
    return validated(
        {
            "id": record_id,
            "name": key.name,
            "kind": key.kind,
            "description": key.description,
            "serial_number": key.serial_number,
            "algorithm": judged.algorithm,
            "fingerprint": sealed.fingerprint,
            "labels": dict(key.labels),
            "kid": recipient.kid,
            "suite": recipient.suite,
            "blob": sealed.blob,
            "supersedes": list(key.supersedes),
            "wrapping": judged.wrapping,
        },
        Record,
    )


def _groups(records: Iterable[Record], bytes_max: int) -> Iterator[list[Record]]:
    # One record always fits: its limits add up to a fraction of a body's.
    group: list[Record] = []
    used = 0
    for record in records:
        size = len(canonical_json(record.model_dump(mode="json"))) + 1
        if group and (used + size > bytes_max or len(group) == RECORDS_MAX):
            yield group
            group, used = [], 0
        group.append(record)
        used += size
    if group:
        yield group


def _sign(escrow: Escrow, signing_key: SigningKey, salts: Mapping[str, Secret]) -> Packed:
    statement = Statement.sign(Escrow.TYPE, escrow.to_bytes(), signing_key)
    return Packed(
        id=escrow.id,
        envelope=statement.envelope(),
        digest=statement.digest,
        records=tuple(
            RecordFacts(
                id=record.id,
                name=record.name,
                kind=record.kind,
                description=record.description,
                serial_number=record.serial_number,
                algorithm=record.algorithm,
                labels=record.labels,
                fingerprint=record.fingerprint,
                kid=record.kid,
                supersedes=tuple(record.supersedes),
            )
            for record in escrow.records
        ),
        salts={record.id: salts[record.id] for record in escrow.records if record.id in salts},
    )
