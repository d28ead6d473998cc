"""How fast an export is verified: tree and digests on one core; every signature on all, against bare Ed25519."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

from tests.support.exports import Authority

from strongroom.crypto.signing import SigningKey
from strongroom.crypto.signing import verify as verify_bare
from strongroom.fields import new_id
from strongroom.messages import Escrow
from strongroom_audit.folder import Export
from strongroom_audit.verify import Options, Verdict, verify

LEAVES: Final = 40_000
ROUNDS: Final = 3
BLOB_BYTES: Final = 1_120 + 16 + 32 + 32  # what x-wing makes of a key of 32 bytes
BODY_BYTES: Final = 2_200
PRINCIPALS: Final = 100
TREE_WANTED: Final = 20_000  # leaves a second on one core
SIGNATURES_WANTED: Final = 0.70  # of the bare rate

JOBS: Final = os.cpu_count() or 1


def made(leaves: int) -> Authority:
    """Make an authority with an escrow log of so many statements of one record each."""
    authority = Authority()
    names = [f"laptop-{number:04}" for number in range(PRINCIPALS)]
    for name in names:
        authority.enrol(name)
    record = {
        "name": "disk",
        "kind": "disk-key",
        "description": "system volume",
        "serial_number": "C02XYZ",
        "algorithm": "aes-256-xts",
        "fingerprint": "ef" * 32,
        "labels": {"site": "berlin"},
        "kid": authority.sealing_keys[0].kid,
        "suite": "x-wing",
        "blob": os.urandom(BLOB_BYTES),
    }
    for number in range(leaves):
        name = names[number % PRINCIPALS]
        body = Escrow.model_validate(
            {
                "authority": authority.name,
                "id": new_id(),
                "issued_at": authority.now,
                "principal": name,
                "records": [{"id": new_id(), **record}],
            }
        )
        authority.store_statement(body, authority.keys[name])
    return authority


def bare(count: int) -> None:
    """Verify so many signatures over bodies of the usual length, and nothing else."""
    keys = [SigningKey.generate() for _ in range(PRINCIPALS)]
    signed = [(key.public_key, message, key.sign(message)) for key in keys for message in [os.urandom(BODY_BYTES)]]
    for number in range(count):
        verify_bare(*signed[number % PRINCIPALS])


def timed(work: Callable[[], Verdict]) -> tuple[float, Verdict]:
    """Return how long it took, in seconds, and what came of it."""
    began = time.perf_counter()
    verdict = work()
    return time.perf_counter() - began, verdict


def bench_verify(tmp_path: Path) -> None:
    """`log verify` of an export, without and with signatures; these side by side with bare Ed25519, in turns."""
    authority = made(LEAVES)
    target = Export(authority.export(tmp_path / "export"))
    key, now = authority.root.public_key, authority.now
    print()
    for _ in range(ROUNDS):
        seconds, verdict = timed(lambda: verify(target, Options(key, now=now, signatures=False)))
        assert (verdict.errors, verdict.records) == (0, LEAVES)
        print(f"tree, digests, rows, one core  {LEAVES / seconds:8,.0f} leaves/s   (wanted {TREE_WANTED:,})")
    for _ in range(ROUNDS):
        with ProcessPoolExecutor(JOBS) as pool:
            began = time.perf_counter()
            list(pool.map(bare, [LEAVES // JOBS] * JOBS))
            bare_rate = LEAVES // JOBS * JOBS / (time.perf_counter() - began)
        seconds, verdict = timed(lambda: verify(target, Options(key, now=now, jobs=JOBS)))
        assert verdict.errors == 0
        rate = verdict.signatures / seconds
        print(
            f"every signature, {JOBS} cores       {rate:8,.0f} leaves/s   bare Ed25519 {bare_rate:,.0f}/s:"
            f" {rate / bare_rate:.0%}   (wanted {SIGNATURES_WANTED:.0%})"
        )
