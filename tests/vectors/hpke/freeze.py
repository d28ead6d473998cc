"""Made frozen.json, once: blobs of version 1 that every later version must open.

Keys, salts and key material are fixed; sealing is not repeatable, so a new run would give other blobs and the
file is never overwritten. Run from the top folder: `PYTHONPATH=shared python tests/vectors/hpke/freeze.py`.
"""

import hashlib
import json
from pathlib import Path

from strongroom.blobs import BlobContext, OpenedMaterial, ReleaseContext, reseal, seal_material
from strongroom.crypto.sealing import PRIVATE_KEY_BYTES, PrivateSealingKey, Suite
from strongroom.crypto.secret import Secret

AUTHORITY = "authority.example"
PRINCIPAL = "laptop-0417"
RECORD_ID = "01890a5d-ac96-774b-bcce-b302099a8057"
MATERIAL = Secret(b"correct horse battery staple")


def expand(label: str, length: int) -> bytes:
    return hashlib.shake_256(b"strongroom test vector: " + label.encode()).digest(length)


def vector(suite: Suite) -> dict[str, dict[str, str]]:
    """Give one suite's key, a record's blob and a release's blob, bytes in hex."""
    private = Secret(expand(f"{suite} private key", PRIVATE_KEY_BYTES[suite]))
    key = PrivateSealingKey.from_bytes(suite, private)
    salt = Secret(expand(f"{suite} salt", 32))
    context = BlobContext(AUTHORITY, PRINCIPAL, RECORD_ID, key.kid, suite)
    sealed = seal_material(MATERIAL, context, key.public_key, salt=salt)
    digest = expand("request digest", 32)
    release = ReleaseContext(AUTHORITY, digest, PRINCIPAL, RECORD_ID, key.kid)
    released = reseal(OpenedMaterial(MATERIAL, salt), release, suite, key.public_key)
    return {
        "key": {
            "suite": suite.value,
            "private_key": private.expose().hex(),
            "public_key": key.public_key.hex(),
            "kid": key.kid,
        },
        "record": {
            "authority": AUTHORITY,
            "principal": PRINCIPAL,
            "record_id": RECORD_ID,
            "info": context.info().hex(),
            "blob": sealed.blob.hex(),
            "salt": salt.expose().hex(),
            "material": MATERIAL.expose().hex(),
            "fingerprint": sealed.fingerprint,
        },
        "release": {"request_digest": digest.hex(), "info": release.info().hex(), "blob": released.hex()},
    }


if __name__ == "__main__":
    with (Path(__file__).parent / "frozen.json").open("x") as file:
        json.dump([vector(suite) for suite in Suite], file, indent=2)
        file.write("\n")
