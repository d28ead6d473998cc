"""An export of a log, checked by the C2SP specifications alone: nothing of Strongroom is imported here.

Written from c2sp.org/signed-note, c2sp.org/tlog-checkpoint, c2sp.org/tlog-tiles and RFC 6962 section 2.1. It is
slow and plain on purpose, so that it can be read beside those texts.
"""

import re
from base64 import b64decode, b64encode
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FULL = 256
SIGNATURE_LINE = re.compile("\N{EM DASH} ([^ ]+) ([^ ]+)")
RESOURCE = re.compile(r"tile/(entries|\d+)/((?:x\d{3}/)*\d{3})(?:\.p/(\d+))?", re.ASCII)


def verify_export(folder: Path, vkey: str) -> int:
    """Return the size of the log in this folder; every file of it has been accounted for.

    Checked are the signature under the checkpoint, each entry bundle, each hash tile of each level, full and
    partial, the root, and that below `tile/` there is nothing else but partial files of earlier sizes that agree
    with the log.

    Args:
        folder: holds `checkpoint` and `tile/`: the prefix of tlog-tiles.
        vkey: verifier key of the log, of type 0x01; its name is the log's origin.

    Raises:
        ValueError: whatever is wrong, with the path of the file.
    """
    size, root = _checkpoint(folder / "checkpoint", vkey)
    entries: list[bytes] = []
    hashes: list[bytes] = []
    for start in range(0, size, FULL):
        width = min(FULL, size - start)
        path, tile = _path("entries", start // FULL, width), _path("0", start // FULL, width)
        bundle = _entries(path, _read(folder, path), width)
        entries += bundle
        hashes += [sha256(b"\x00" + entry).digest() for entry in bundle]
        if _read(folder, tile) != b"".join(hashes[start:]):
            raise ValueError(f"{path}: these are not the entries of {tile}")
    if _tree_hash(hashes) != root:
        raise ValueError("checkpoint: its root is not that of the entries")
    # What the log consists of: every resource is a slice of one of these rows.
    level = 0
    rows = {"entries": [len(entry).to_bytes(2, "big") + entry for entry in entries]}
    while hashes:
        rows[str(level)] = hashes
        full = range(0, len(hashes) // FULL * FULL, FULL)
        level, hashes = level + 1, [_tree_hash(hashes[start : start + FULL]) for start in full]
    for name, row in rows.items():
        for start in range(0, len(row), FULL):
            _read(folder, _path(name, start // FULL, min(FULL, len(row) - start)))
    for file in sorted((folder / "tile").rglob("*")):
        if not file.is_dir():
            _resource(folder, file.relative_to(folder).as_posix(), rows)
    return size


def _resource(folder: Path, path: str, rows: dict[str, list[bytes]]) -> None:
    """Compare one file with the part of the log that its path names."""
    match = RESOURCE.fullmatch(path)
    if match is None or match[1] not in rows:
        raise ValueError(f"{path}: is no resource of the log")
    row, index, width = rows[match[1]], int(re.sub("[x/]", "", match[2])), int(match[3] or FULL)
    part = row[index * FULL : index * FULL + width]
    if _path(match[1], index, width) != path or len(part) != width:
        raise ValueError(f"{path}: is no resource of the log")
    if _read(folder, path) != b"".join(part):
        raise ValueError(f"{path}: is not what the log holds there")


def _checkpoint(file: Path, vkey: str) -> tuple[int, bytes]:
    """Return size and root of a checkpoint that this key signed under its name, the origin."""
    name, key_id, key = vkey.split("+", 2)
    material = b64decode(key, validate=True)
    if material[:1] != b"\x01" or sha256(name.encode() + b"\n" + material).digest()[:4].hex() != key_id:
        raise ValueError("the verifier key is of another type, or its id is another's")
    try:
        note = _read(file.parent, file.name).decode()
    except UnicodeDecodeError:
        raise ValueError("checkpoint: is not UTF-8") from None
    text, blank, block = note.rpartition("\n\n")
    if not blank or not block.endswith("\n") or re.search("[\x00-\x09\x0b-\x1f]", note):
        raise ValueError("checkpoint: is no signed note")
    signed = False
    for line in block.removesuffix("\n").split("\n"):
        match = SIGNATURE_LINE.fullmatch(line)
        if match is None:
            raise ValueError("checkpoint: a signature line is misshapen")
        signature = _base64(match[2])
        if match[1] == name and signature[:4].hex() == key_id:
            try:
                Ed25519PublicKey.from_public_bytes(material[1:]).verify(signature[4:], f"{text}\n".encode())
            except InvalidSignature:
                raise ValueError("checkpoint: the signature is false") from None
            signed = True
    if not signed:
        raise ValueError("checkpoint: is not signed by this key")
    lines = text.split("\n")
    if len(lines) < 3 or "" in lines or lines[0] != name or not re.fullmatch("0|[1-9][0-9]*", lines[1]):
        raise ValueError("checkpoint: is misshapen or of another log")
    return int(lines[1]), _base64(lines[2])


def _entries(path: str, bundle: bytes, width: int) -> list[bytes]:
    entries: list[bytes] = []
    at = 0
    while at < len(bundle):
        end = at + 2 + int.from_bytes(bundle[at : at + 2], "big")
        if end > len(bundle):
            raise ValueError(f"{path}: entry {len(entries)} is cut off")
        entries.append(bundle[at + 2 : end])
        at = end
    if len(entries) != width:
        raise ValueError(f"{path}: holds {len(entries)} entries where {width} are due")
    return entries


def _tree_hash(hashes: list[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, over leaf hashes."""
    if not hashes:
        return sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return sha256(b"\x01" + _tree_hash(hashes[:k]) + _tree_hash(hashes[k:])).digest()


def _path(name: str, index: int, width: int) -> str:
    digits = f"{index:03}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    path = f"tile/{name}/" + "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
    return path if width == FULL else f"{path}.p/{width}"


def _base64(text: str) -> bytes:
    try:
        value = b64decode(text, validate=True)
    except ValueError:
        value = b""
    if not value or b64encode(value).decode() != text:
        raise ValueError("checkpoint: its base64 is not canonical")
    return value


def _read(folder: Path, path: str) -> bytes:
    try:
        return (folder / path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
