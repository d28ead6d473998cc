"""A place whose sealing key changes: a roster with a new one, what is sealed to it, and who opens what."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.support import authority as make
from tests.support.proving import Proven

from strongroom.crypto.key_file import write_sealing_key
from strongroom.crypto.keyring import Keyring
from strongroom.crypto.rsa import Unwrapper
from strongroom.crypto.sealing import PrivateSealingKey, Suite
from strongroom.errors import KeyUnknown
from strongroom.fields import parse_body
from strongroom.leaves import ResealLeaf, RetirementLeaf
from strongroom.mandates import SealingKeyState
from strongroom.messages import Escrow
from strongroom.roster import Roster
from strongroom.service import Health
from strongroom.statements import parse_envelope
from strongroom_recovery import wiring as recovery
from strongroom_recovery.key_blobs import KeyBlob, opened
from strongroom_recovery.prover.wiring import read_keys
from strongroom_recovery.reseal import wiring
from strongroom_recovery.reseal.planning import Progress
from strongroom_recovery.reseal.resealing import digest
from strongroom_recovery.reseal.retiring import Retirement, retire
from strongroom_recovery.reseal.worker import Resealer

OLD = make.sealing_key()
ACTIVE, ACCEPTED, CLOSED = SealingKeyState.ACTIVE, SealingKeyState.ACCEPTED, SealingKeyState.CLOSED


class Ring:
    """A keyring of these keys."""

    def __init__(self, *keys: PrivateSealingKey) -> None:
        self._keys = {key.kid: key for key in keys}

    @property
    def kids(self) -> frozenset[str]:
        """Their ids."""
        return frozenset(self._keys)

    @property
    def transport_kids(self) -> frozenset[str]:
        """No ids."""
        return frozenset()

    def opener(self, kid: str) -> PrivateSealingKey:
        """Give the key, or raise KeyUnknown."""
        if kid not in self._keys:
            raise KeyUnknown(f"this keyring does not hold the sealing key {kid}")
        return self._keys[kid]

    def transport(self, kid: str) -> Unwrapper:
        """Raise KeyUnknown."""
        raise KeyUnknown(kid)


def new_key(suite: Suite = Suite.X_WING) -> PrivateSealingKey:
    """Return the key that takes the place of the old one."""
    return make.sealing_key("the new one", suite)


def write_key(at: Proven, key: PrivateSealingKey) -> None:
    """Put a key file into the folder of the sealing keys, unless it is there."""
    folder = at.settings.sealing_keys_dir
    assert folder is not None
    if not (folder / f"{key.kid}.key").exists():
        write_sealing_key(folder / f"{key.kid}.key", key, None)


async def adopt(at: Proven, *keys: tuple[PrivateSealingKey, SealingKeyState], **changes: Any) -> Roster:
    """Sign the next roster with these sealing keys, and let a recovery worker put it into the log."""
    entries = [make.sealing_entry(key, state) for key, state in keys]
    at.place.roster = make.next_roster(at.place.roster, sealing_keys=entries, **changes)
    at.place.write_roster(at.place.roster)
    settings = at.place.settings
    async with recovery.recovery_worker(settings, recovery.read_keys(settings), Health(None), clock=lambda: at.now):
        pass
    return at.place.roster


async def change_key(at: Proven, suite: Suite = Suite.X_WING) -> PrivateSealingKey:
    """Add a new key and make it the active one; the old one is still accepted."""
    key = new_key(suite)
    write_key(at, key)
    await adopt(at, (key, ACTIVE), (OLD, ACCEPTED))
    return key


@asynccontextmanager
async def resealer(at: Proven, **changes: Any) -> AsyncIterator[Resealer]:
    """Open what seals again, with these settings changed."""
    options = {name: changes.pop(name) for name in ("again", "rate", "told") if name in changes}
    settings = at.settings.model_copy(update=changes)
    async with wiring.resealer(settings, read_keys(settings), clock=lambda: at.now, **options) as job:
        yield job


async def reseal(at: Proven, **changes: Any) -> Progress:
    """Seal again until nothing is left to do."""
    async with resealer(at, **changes) as job:
        await job.serve(asyncio.Event())
        assert job.is_done
    return job.progress


async def retired(at: Proven, kid: str, *give_up: str) -> Retirement:
    """Try to retire a key, these records given up."""
    async with wiring.means_of(at.settings) as (means, keys):
        return await retire(means, keys, kid, give_up=give_up, clock=lambda: at.now)


async def reseal_leaves(at: Proven) -> list[ResealLeaf]:
    """Return the `reseal` leaves of the recovery log."""
    return [leaf for leaf in await at.place.log() if isinstance(leaf, ResealLeaf)]


async def retirements(at: Proven) -> list[RetirementLeaf]:
    """Return the `retirement` leaves of the recovery log."""
    return [leaf for leaf in await at.place.log() if isinstance(leaf, RetirementLeaf)]


@dataclass(frozen=True)
class Kept:
    """What is stored: signed statements by their place, and rows of blobs that were sealed again."""

    statements: list[Escrow]
    envelopes: list[bytes]
    rows: dict[tuple[str, str], tuple[str, bytes, int]]

    def of(self, record_id: str) -> list[tuple[str, tuple[str, bytes, int]]]:
        """Return kid, and suite, blob and leaf index, of a record's rows, newest first."""
        found = [(kid, row) for (id_, kid), row in self.rows.items() if id_ == record_id]
        return sorted(found, key=lambda each: -each[1][2])

    def opens(self, *keys: PrivateSealingKey) -> dict[str, bytes]:
        """Return the key material of every record that these keys alone open, by its id."""
        ring: Keyring = Ring(*keys)
        found = {}
        for escrow in self.statements:
            for record in escrow.records:
                blobs = [KeyBlob(kid, *row[:2]) for kid, row in self.of(record.id)]
                try:
                    key = opened(escrow.authority, escrow.principal, record, ring, blobs)
                except KeyUnknown:
                    continue
                found[record.id] = key.material.expose()
        return found


async def kept(at: Proven) -> Kept:
    """Read what is stored."""
    envelopes = [
        row["envelope"] for row in await at.place.rows("SELECT envelope FROM escrow_statements ORDER BY leaf_index")
    ]
    rows = await at.place.rows("SELECT record_id, kid, suite, blob, leaf_index FROM resealed_blobs")
    return Kept(
        [parse_body(parse_envelope(envelope), Escrow) for envelope in envelopes],
        envelopes,
        {(str(row["record_id"]), row["kid"]): (row["suite"], row["blob"], row["leaf_index"]) for row in rows},
    )


async def check_rows(at: Proven) -> None:
    """Fail unless rows and `reseal` leaves pair off, each leaf's digest over its rows in order of place."""
    rows = await at.place.rows(
        "SELECT b.record_id, b.kid, b.blob, b.leaf_index, r.leaf_index AS place FROM resealed_blobs AS b"
        " JOIN records AS r ON r.id = b.record_id ORDER BY r.leaf_index, r.position"
    )
    by_leaf: dict[int, list[tuple[str, bytes]]] = {}
    for row in rows:
        by_leaf.setdefault(row["leaf_index"], []).append((str(row["record_id"]), row["blob"]))
    for index, leaf in enumerate(await at.place.log()):
        if isinstance(leaf, ResealLeaf):
            written = by_leaf.pop(index, [])
            assert (leaf.records, leaf.digest) == (len(written), digest(written))
            assert all(row["kid"] == leaf.kid for row in rows if row["leaf_index"] == index)
            assert all(
                leaf.first <= row["place"] < leaf.first + leaf.count for row in rows if row["leaf_index"] == index
            )
    assert by_leaf == {}
