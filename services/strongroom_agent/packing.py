"""From keys to signed statements: each key is sealed at once, and only sealed blobs go on."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from strongroom.blobs import BlobContext, seal_material
from strongroom.crypto.secret import Secret
from strongroom.crypto.signing import SigningKey
from strongroom.fields import new_id, validated
from strongroom.limits import BODY_BYTES_MAX, CLOCK_SKEW_SECONDS, RECORDS_MAX
from strongroom.messages import Escrow, Record
from strongroom.roster import Roster
from strongroom.statements import Statement, canonical_json
from strongroom_agent.spool import Packed, RecordFacts, Spool


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyToEscrow:
    """One key to hand over: the secret, 1 to 65,536 bytes, and what people will know it by (limits: SPEC 11).

    supersedes: ids of at most 16 older records of this host whose place it takes (SPEC 4.5).
    """

    material: Secret
    name: str
    kind: str
    description: str = ""
    serial_number: str = ""
    algorithm: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    supersedes: Sequence[str] = ()


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
    with the statements, because the live key can be read here to be compared with the record. Raises
    LimitExceeded or MalformedStatement naming the field of the first key that breaks a limit, KeyUnknown for a
    roster whose sealing key is malformed.
    """
    # The ids decide which of several records of one name and second is the newest (SPEC 4.4).
    ids = sorted(new_id() for _ in keys)
    salts: dict[str, Secret] = {}
    records = (
        _seal(key, id_, principal, roster, salts if key.name in compared else None)
        for key, id_ in zip(keys, ids, strict=True)
    )
    authority = roster.body.authority
    envelope_free = canonical_json(
        {"authority": authority, "id": new_id(), "issued_at": now, "principal": principal, "records": []}
    )
    return [
        _sign(
            Escrow(authority=authority, id=new_id(), issued_at=now, principal=principal, records=group),
            signing_key,
            salts,
        )
        for group in _groups(records, BODY_BYTES_MAX - len(envelope_free))
    ]


def _seal(
    key: KeyToEscrow, record_id: str, principal: str, roster: Roster, salts: dict[str, Secret] | None
) -> Record:
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
            "algorithm": key.algorithm,
            "fingerprint": sealed.fingerprint,
            "labels": dict(key.labels),
            "kid": recipient.kid,
            "suite": recipient.suite,
            "blob": sealed.blob,
            "supersedes": list(key.supersedes),
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
