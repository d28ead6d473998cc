"""Every parser of bytes that strangers wrote, as a function of bytes, with good input to begin from.

`judge` runs one: what it reads it reads, and what it refuses it refuses by the errors that its contract names.
Anything else that comes out is a finding. Where a parser has a writer, what was read is written again.
"""

import base64
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pamqp.commands import Basic
from pamqp.header import ContentHeader
from tests.support import authority as make
from tests.support import bodies

from strongroom.amqp_decoding import decode_leniently
from strongroom.crypto import age_passphrase, key_file, notes
from strongroom.crypto.certificates import read_certificate
from strongroom.crypto.cosignatures import parse_vkey
from strongroom.crypto.pkcs11_uri import Pkcs11Uri
from strongroom.crypto.private_keys import pkcs8_algorithm
from strongroom.crypto.rsa import RsaPublicKey
from strongroom.crypto.secret import Secret
from strongroom.errors import PermanentError
from strongroom.fields import validated
from strongroom.formats import armour, ber, kinds
from strongroom.formats.cms import EnvelopedData
from strongroom.formats.cms_recipients import RecipientKey
from strongroom.formats.cryptoapi import parse_key_blob
from strongroom.formats.openssh import OpensshKey
from strongroom.formats.volume_key import VolumeKeyPacket
from strongroom.leaves import parse_leaf
from strongroom.receipts import parse as parse_receipt
from strongroom.replies import parse_reply
from strongroom.statements import canonical_json, parse_envelope, parse_json
from strongroom.tiles import TILE_WIDTH, unpack_entries
from strongroom_agent import age
from strongroom_agent.cards import FORMAT as CARD_FORMAT
from strongroom_agent.cards import EnrolmentCard
from strongroom_agent.invitation import InvitationFile

VECTORS: Final = Path(__file__).parents[1] / "vectors"

_RSA_BITS_MIN: Final = 512
_LABELS: Final = ("CMS", "PKCS7", "PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "OPENSSH PRIVATE KEY", "CERTIFICATE")


@dataclass(frozen=True, slots=True)
class Target:
    """A parser and what it may refuse with; `seeds` gives input that it reads, and some that it refuses."""

    parse: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    refusals: tuple[type[Exception], ...] = (PermanentError,)


def judge(name: str, data: bytes) -> bool:
    """Say whether a target reads this; raises whatever no caller of the parser is prepared for."""
    target = TARGETS[name]
    try:
        target.parse(data)
    except target.refusals:
        return False
    return True


# ---- other people's formats --------------------------------------------------------------------


def _key_blob(data: bytes) -> None:
    read = parse_key_blob(Secret(data), rsa_bits_min=_RSA_BITS_MIN)
    written = read.encode()
    assert (written.expose() if isinstance(written, Secret) else written) == data


def _ber(data: bytes) -> None:
    for streamed in (False, True):
        try:
            ber.read(data, streamed=streamed)
        except PermanentError:
            if streamed:
                raise


def _certificate(data: bytes) -> None:
    RecipientKey.from_certificate(data)
    read_certificate(data)


def _every_kind(data: bytes) -> None:
    for kind in kinds.KeyKind:
        kinds.validate(kind, Secret(data))


def _files(pattern: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted(VECTORS.glob(pattern)) if path.suffix != ".sh"]


def _key_blobs() -> list[bytes]:
    vectors = json.loads((VECTORS / "cryptoapi.json").read_text())
    found = [
        vectors[f"{name}_key_blob"] for name in ("authority_public", "application_private", "application_public")
    ]
    for each in vectors["simple_blobs"]:
        found += [each["simple_blob"], each["plaintext_key_blob"]]
    return [bytes.fromhex(each) for each in found]


def _certificates() -> list[bytes]:
    return [armour.read_pem(pem, ["CERTIFICATE"])[1] for pem in _files("cms/*.crt.pem")]


def _spki() -> list[bytes]:
    return [
        RecipientKey.from_certificate(each).public_key.to_spki()
        for each in _certificates()
        if judge("certificate", each)
    ]


def _kinds() -> list[bytes]:
    others = [b"AGE-SECRET-KEY-1" + b"Q" * 58 + b"\n", b"-".join([b"000000"] * 8)]
    return [*_files("pkcs8/*"), *_files("openssh/*.key"), *others]


# ---- what is signed and logged -----------------------------------------------------------------


def _envelope(data: bytes) -> None:
    statement = parse_envelope(data)
    assert parse_envelope(statement.envelope()) == statement


def _body(data: bytes) -> None:
    document = parse_json(data, what="body")
    refusal: PermanentError | None = None
    for model in MODELS:
        try:
            read = validated(document, model)
        except PermanentError as error:
            refusal = error
        else:
            assert validated(read.model_dump(mode="json"), model) == read
            return
    raise refusal or AssertionError("there are no models")


MODELS: Final = tuple({type(body): None for body in bodies.BODIES.values()})


def _text(data: bytes) -> str:
    # JSON may hold half of a surrogate pair, and what has one in it is text of Python and of nobody else.
    return data.decode("utf-8", "surrogateescape")


def _bodies() -> list[bytes]:
    return [canonical_json(document) for document in bodies.DOCUMENTS.values()]


def _notes() -> list[bytes]:
    return [each["note"].encode() for each in json.loads((VECTORS / "tlog" / "notes.json").read_text())]


def _vkeys() -> list[bytes]:
    return [each["vkey"].encode() for each in json.loads((VECTORS / "tlog" / "notes.json").read_text())]


def _checkpoints() -> list[bytes]:
    key = make.signing_key("escrow log")
    checkpoint = notes.Checkpoint("backup.example.org/escrow", 7, bytes(32))
    return [*_notes(), notes.sign_checkpoint(checkpoint, key.sign, key.public_key).encode()]


def _proofs() -> list[bytes]:
    return [
        *_files("tlog/*.tlog-proof"),
        notes.proof_text(3, [bytes(32)] * 4, _checkpoints()[-1].decode()).encode(),
    ]


def _receipts() -> list[bytes]:
    leaf = base64.b64encode(_LEAVES[0]).decode()
    return [canonical_json({"leaf": leaf, "proof": _proofs()[-1].decode()})]


def _replies() -> list[bytes]:
    statement = make.escrow().document()
    receipt = json.loads(_receipts()[0])
    consistency = {"from": 3, "hashes": [base64.b64encode(bytes(32)).decode()]}
    return [
        canonical_json({"statement": statement}),
        canonical_json({"receipt": receipt}),
        canonical_json(
            {"statement": statement, "receipt": receipt, "roster": statement, "consistency": consistency}
        ),
        canonical_json({"receipt": receipt, "attached": [statement, statement]}),
    ]


_LEAVES: Final = (
    make.roster_leaf(make.roster()),
    make.enrolment_leaf(make.enrolment(make.invitation())),
    make.revocation_leaf(make.revocation()),
)


# ---- files that are handed on ------------------------------------------------------------------


@contextmanager
def _in_a_file(data: bytes) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile() as stream:
        os.fchmod(stream.fileno(), 0o600)
        stream.write(data)
        stream.flush()
        yield Path(stream.name)


def _key_file(data: bytes) -> None:
    with _in_a_file(data) as path:
        key_file.read_signing_key(path, None)


def _key_files() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "signing.key"
        key_file.write_signing_key(path, make.signing_key("officer"), None)
        return [path.read_bytes()]


def _age(data: bytes) -> None:
    header = age.read_header(io.BytesIO(data), "file")
    assert data.startswith(header)
    if age_passphrase.is_for_passphrase(header):
        age_passphrase.check_header(header)


def _age_payload(data: bytes) -> None:
    age_passphrase.decrypt(_AGE_HEADER, io.BytesIO(data), io.BytesIO(), _AGE_PASSPHRASE)


def _age_identities(data: bytes) -> None:
    with _in_a_file(data) as path:
        age.read_identities(path)


def _identity_files() -> list[bytes]:
    _, text = age.new_identity()
    return [b"# a comment\n\n" + text.expose() + b"\n", *_kinds()[-2:]]


def _card(data: bytes) -> None:
    card = EnrolmentCard.parse(data)
    assert EnrolmentCard.parse(card.to_bytes()) == card


def _cards() -> list[bytes]:
    key = make.signing_key("one-time").public_key
    return [EnrolmentCard(format=CARD_FORMAT, principal=make.PRINCIPAL, one_time_key=key).to_bytes()]


def _invitation(data: bytes) -> None:
    written = InvitationFile.parse(data).to_bytes()
    assert InvitationFile.parse(written).to_bytes() == written


def _invitations() -> list[bytes]:
    root = make.signing_key("root").public_key
    key, roster = make.signing_key("one-time"), make.roster().statement
    return [
        InvitationFile(make.invitation(), each, root, roster, "amqps://h:p@broker.example/v", ca).to_bytes()
        for each, ca in ((key, None), (None, "a certificate"))
    ]


def _sealed(content: bytes) -> bytes:
    sealed = io.BytesIO()
    age_passphrase.encrypt(io.BytesIO(content), sealed, _AGE_PASSPHRASE, log_n=1)
    return sealed.getvalue()


_AGE_PASSPHRASE: Final = Secret(b"passphrase")
_AGE_FILE: Final = _sealed(b"content" * 20_000)
_AGE_HEADER: Final = age.read_header(io.BytesIO(_AGE_FILE), "file")


def _age_headers() -> list[bytes]:
    identity, _ = age.new_identity()
    sealed = io.BytesIO()
    age.encrypt(io.BytesIO(b"content"), sealed, [identity.to_public()])
    return [sealed.getvalue(), _AGE_HEADER, b"-----BEGIN AGE ENCRYPTED FILE-----\nAAAA\n"]


def _amqp(data: bytes) -> None:
    decode_leniently()
    # What stands before the properties is the broker's own.
    ContentHeader().unmarshal(_BROKERS + data)


def _amqp_headers() -> list[bytes]:
    sent = Basic.Properties(
        correlation_id="1", reply_to="amq.rabbitmq.reply-to.x", headers={"x-log-index": 7, "a": {}}
    )
    return [b"\0\0", ContentHeader(0, 10, sent).marshal()[12:]]


_BROKERS: Final = bytes(12)


TARGETS: Final = {
    "age-header": Target(_age, _age_headers),
    "age-identities": Target(_age_identities, _identity_files),
    "age-payload": Target(_age_payload, lambda: [_AGE_FILE[len(_AGE_HEADER) :]]),
    "amqp-header": Target(_amqp, _amqp_headers),
    "ber": Target(_ber, lambda: _files("cms/*.?er")),
    "body": Target(_body, _bodies),
    "card": Target(_card, _cards),
    "certificate": Target(_certificate, _certificates),
    "checkpoint": Target(lambda data: notes.parse_checkpoint(_text(data)), _checkpoints),
    "cms": Target(EnvelopedData.parse, lambda: _files("cms/*.?er")),
    "entries": Target(lambda data: unpack_entries(data, "entries", TILE_WIDTH), lambda: [b"\0\4leaf" * TILE_WIDTH]),
    "envelope": Target(_envelope, lambda: [make.escrow().envelope()]),
    "invitation": Target(_invitation, _invitations),
    "json": Target(lambda data: parse_json(data, what="document"), _bodies),
    "key-blob": Target(_key_blob, _key_blobs),
    "key-file": Target(_key_file, _key_files),
    "kinds": Target(_every_kind, _kinds),
    "leaf": Target(parse_leaf, lambda: list(_LEAVES)),
    "note": Target(lambda data: notes.parse_note(_text(data)), _notes),
    "openssh": Target(lambda data: OpensshKey.parse(Secret(data)), lambda: _files("openssh/*.key")),
    "pem": Target(lambda data: armour.read_pem(data, _LABELS), lambda: _files("*/*.pem") + _files("openssh/*.key")),
    "pkcs11-uri": Target(
        lambda data: Pkcs11Uri.parse(_text(data)),
        lambda: [
            b"pkcs11:token=a%20b;serial=1;slot-id=3?module-path=/lib/x.so&pin-source=file:/run/pin",
            b"pkcs11:token=a?module-path=/lib/x.so&pin-value=\xff",
        ],
    ),
    "pkcs8": Target(lambda data: pkcs8_algorithm(Secret(data)), lambda: _files("pkcs8/*.der")),
    "proof": Target(lambda data: notes.parse_proof(_text(data)), _proofs),
    "receipt": Target(lambda data: parse_receipt(parse_json(data, what="receipt")), _receipts),
    "reply": Target(parse_reply, _replies),
    # Its contract is that of keys in configuration: ValueError.
    "rsa-public": Target(RsaPublicKey.from_spki, _spki, (ValueError,)),
    "smime": Target(armour.read_smime, lambda: _files("cms/*.smime")),
    "vkey": Target(lambda data: parse_vkey(_text(data)), _vkeys),
    "volume-key": Target(lambda data: VolumeKeyPacket.parse(Secret(data)), lambda: _files("cms/*.packet")),
}
