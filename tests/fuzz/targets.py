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
from itertools import pairwise
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pamqp.commands import Basic
from pamqp.header import ContentHeader
from tests.support import authority as make
from tests.support import bodies
from tests.support import requests as ask
from tests.support import wrapped as given

from strongroom.amqp_decoding import decode_leniently
from strongroom.crypto import age_passphrase, key_file, notes
from strongroom.crypto.certificates import read_certificate
from strongroom.crypto.cosignatures import parse_vkey
from strongroom.crypto.hpke_opening import open_with
from strongroom.crypto.pkcs11_uri import Pkcs11Uri
from strongroom.crypto.private_keys import pkcs8_algorithm
from strongroom.crypto.rsa import Padding, RsaPublicKey
from strongroom.crypto.sealing import Suite, seal
from strongroom.crypto.secret import Secret
from strongroom.crypto.transport_key_file import read_private_key, write_transport_key
from strongroom.errors import PermanentError, StateCorrupt
from strongroom.fields import Capacity, validated
from strongroom.formats import armour, ber, kinds
from strongroom.formats.cms import EnvelopedData
from strongroom.formats.cms_recipients import RecipientKey
from strongroom.formats.cryptoapi import parse_key_blob
from strongroom.formats.openssh import OpensshKey
from strongroom.formats.volume_key import VolumeKeyPacket
from strongroom.key_cards import KeyCard, KeyUse
from strongroom.leaves import parse_leaf
from strongroom.mandates import RosterBody
from strongroom.messages import Destination, Release, WrappedFormat
from strongroom.receipts import parse as parse_receipt
from strongroom.replies import parse_reply
from strongroom.root_keys import root_keys, sign_change
from strongroom.statements import Statement, canonical_json, parse_envelope, parse_json
from strongroom.tiles import TILE_WIDTH, unpack_entries
from strongroom.wrapped import check, identify
from strongroom_agent import age
from strongroom_agent.cards import FORMAT as CARD_FORMAT
from strongroom_agent.cards import EnrolmentCard
from strongroom_agent.checks import parse_checks
from strongroom_agent.home import Config, Home, Role
from strongroom_agent.import_csv import CsvFile
from strongroom_agent.import_entries import Defaults
from strongroom_agent.invitation import InvitationFile
from strongroom_agent.kept_exports import Chosen, KeptExport, Move
from strongroom_agent.transfer_file import Header, Moved, TransferFile

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


_TRANSPORT_ROSTER: Final = make.roster(transport_keys=[given.SIMPLE])


def _wrapped(data: bytes) -> None:
    """Take it in every format and padding, as whoever escrows it and as the prover does."""
    refusal: PermanentError | None = None
    for kind in WrappedFormat:
        for padding in Padding:
            try:
                signed = identify(kind, Secret(data), padding, given.SIMPLE.kid, _TRANSPORT_ROSTER)
            except PermanentError as error:
                refusal = error
            else:
                check(signed, Secret(data))
                return
    raise refusal or AssertionError("there are no formats")


def _wrapped_keys() -> list[bytes]:
    return [given.simple_blob(bytes(32), padding) for padding in Padding]


_ON_A_TOKEN: Final = ec.derive_private_key(0x5EA1, ec.SECP256R1())
_ON_A_TOKEN_PUBLIC: Final = _ON_A_TOKEN.public_key().public_bytes(
    serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
)


def _hpke(data: bytes) -> None:
    def ecdh(point: bytes) -> Secret:
        public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        return Secret(_ON_A_TOKEN.exchange(ec.ECDH(), public))

    open_with(ecdh, _ON_A_TOKEN_PUBLIC, data, b"info")


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


_ROOTS: Final = tuple(make.signing_key(each) for each in ("root", "next root", "last root"))


def _root_changes(data: bytes) -> None:
    """Follow them from each key that somebody may have pinned; no key comes in that nobody handed over to."""
    statement = Statement.sign(RosterBody.TYPE, data, _ROOTS[0])
    known = [each.public_key for each in _ROOTS]
    for pinned in known:
        places = [known.index(each) for each in root_keys(statement, pinned)]
        assert places == sorted(places)


def _rosters() -> list[bytes]:
    changes = [sign_change(make.AUTHORITY, *pair, now=make.NOW).envelope() for pair in pairwise(_ROOTS)]
    return [make.roster_body(root_changes=each).to_bytes() for each in ([], changes, changes[:1], changes[::-1])]


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


def _private_key_file(data: bytes) -> None:
    with _in_a_file(data) as path:
        read_private_key(path, None)


def _private_key_files() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "transport.key"
        write_transport_key(path, given.transport_key(), None)
        return [path.read_bytes()]


def _key_card(data: bytes) -> None:
    card = KeyCard.parse(data)
    assert KeyCard.parse(card.to_bytes()) == card


def _key_cards() -> list[bytes]:
    sealing, signing, transport = make.sealing_key(), make.signing_key("escrow log"), given.SIMPLE
    cards = (
        KeyCard(use=KeyUse.SEALING, id=sealing.kid, suite=sealing.suite, public_key=sealing.public_key),
        KeyCard(use=KeyUse.TRANSPORT, id=transport.kid, suite=None, public_key=transport.public_key),
        KeyCard(use=KeyUse.ESCROW_LOG, id=signing.key_id, suite=None, public_key=signing.public_key),
    )
    return [each.to_bytes() for each in cards]


_ELSEWHERE: Final = Destination(authority="keys.example.net", principal="archive")


def _transfer(data: bytes) -> None:
    with _in_a_file(data) as path:
        file = TransferFile(path)
        count = sum(len(moved.release.records) for moved in file.moved())
        assert count == file.header.records
        assert data.count(b"\n") == 1 + file.header.releases


def _transfers() -> list[bytes]:
    released = bodies.BODIES["release"]
    assert isinstance(released, Release)
    request = ask.request(
        requester="officer-a",
        requester_kind=Capacity.OFFICER,
        records=[each.id for each in released.records],
        destination=_ELSEWHERE,
    )
    release = make.signed(released, make.signing_key("recovery reply"))
    header = Header(
        authority=make.AUTHORITY, principal=make.PRINCIPAL, destination=_ELSEWHERE, releases=1, records=1
    )
    roster = make.roster().statement
    return [
        TransferFile.first_line(header.model_copy(update={"releases": 0, "records": 0}), roster),
        TransferFile.first_line(header, roster) + Moved.line(request, release, json.loads(_receipts()[0])),
    ]


def _import_csv(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "key").write_bytes(b"k")
        path = Path(folder) / "keys.csv"
        path.write_bytes(data)
        source = CsvFile(path, Defaults())
        rows = [entry.row for entry in source.entries()]
        assert rows == sorted(rows)
        assert source.done == len(data)


_CSV_FILES: Final = (
    b'\xef\xbb\xbfname,kind,base64,hex,label:role\r\nb,raw,AAAA,,db\r\n"a ""b""\nc",,,00ff,\r\n',
    b"name,file,text,format,padding\nb,key,,cms,\nc,,x,cryptoapi-simple,oaep\nd,../key,,,\n",
)


def _kept_export(data: bytes) -> None:
    config = Config(name="officer-a", role=Role.OFFICER, key_id="0" * 32, public_key=bytes(32))
    move = Move(make.PRINCIPAL, _ELSEWHERE, make.sealing_entry(make.sealing_key()))
    with tempfile.TemporaryDirectory() as folder:
        kept = KeptExport(Home(Path(folder), config), move, None)
        kept.selection(Chosen([]))
        [path] = Path(folder).glob("exports/*/selection.json")
        path.write_bytes(data)
        kept.selection(Chosen([]))


def _selections() -> list[bytes]:
    return [canonical_json({"records": bodies.ids_of(2), "left_out": [[bodies.ids_of(1)[0], "disk", "lost"]]})]


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
    "checks": Target(
        lambda data: parse_checks(data, where="checks"),
        lambda: [
            b'[[check]]\nname = "disk"\nfile = "/k"\n\n[[check]]\nname = "age"\ncommand = ["/bin/test", "-e"]\n'
        ],
    ),
    "checkpoint": Target(lambda data: notes.parse_checkpoint(_text(data)), _checkpoints),
    "cms": Target(EnvelopedData.parse, lambda: _files("cms/*.?er")),
    "entries": Target(lambda data: unpack_entries(data, "entries", TILE_WIDTH), lambda: [b"\0\4leaf" * TILE_WIDTH]),
    "envelope": Target(_envelope, lambda: [make.escrow().envelope()]),
    "hpke-blob": Target(
        _hpke, lambda: [seal(Suite.P256, _ON_A_TOKEN_PUBLIC, bytes(length), b"info") for length in (0, 1, 100)]
    ),
    "import-csv": Target(_import_csv, lambda: list(_CSV_FILES)),
    "invitation": Target(_invitation, _invitations),
    "json": Target(lambda data: parse_json(data, what="document"), _bodies),
    "key-blob": Target(_key_blob, _key_blobs),
    "kept-export": Target(_kept_export, _selections, (StateCorrupt,)),
    "key-card": Target(_key_card, _key_cards),
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
    "private-key-file": Target(_private_key_file, _private_key_files),
    "proof": Target(lambda data: notes.parse_proof(_text(data)), _proofs),
    "receipt": Target(lambda data: parse_receipt(parse_json(data, what="receipt")), _receipts),
    "reply": Target(parse_reply, _replies),
    "root-changes": Target(_root_changes, _rosters),
    # Its contract is that of keys in configuration: ValueError.
    "rsa-public": Target(RsaPublicKey.from_spki, _spki, (ValueError,)),
    "smime": Target(armour.read_smime, lambda: _files("cms/*.smime")),
    "transfer": Target(_transfer, _transfers),
    "vkey": Target(lambda data: parse_vkey(_text(data)), _vkeys),
    "volume-key": Target(lambda data: VolumeKeyPacket.parse(Secret(data)), lambda: _files("cms/*.packet")),
    "wrapped": Target(_wrapped, _wrapped_keys),
}
