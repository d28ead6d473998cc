"""Which blob of a record is opened: the newest that there is a key for, then the others; only its own key."""

import pytest
from tests.support import authority as make
from tests.support.resealing import OLD, Ring, new_key

from strongroom.blobs import BlobContext, seal_material
from strongroom.crypto.sealing import PrivateSealingKey, Suite
from strongroom.crypto.secret import Secret
from strongroom.errors import BlobInvalid, FingerprintMismatch, KeyUnknown, NoAnswer, PermanentError
from strongroom.messages import Record
from strongroom_recovery.key_blobs import BLOB_BYTES_MAX, KeyBlob, opened

NEW, P256 = new_key(), new_key(Suite.P256)
MATERIAL = b"a session key"


def sealed(record: Record, key: PrivateSealingKey, material: bytes | None = None) -> KeyBlob:
    """Seal a record's key again, or other material in its place."""
    place = BlobContext(make.AUTHORITY, make.PRINCIPAL, record.id, key.kid, key.suite)
    held = opened(make.AUTHORITY, make.PRINCIPAL, record, Ring(OLD))
    blob = seal_material(Secret(material or held.material.expose()), place, key.public_key, salt=held.salt).blob
    return KeyBlob(key.kid, key.suite.value, blob)


def material(record: Record, *resealed: KeyBlob, keys: tuple[PrivateSealingKey, ...]) -> bytes:
    return opened(make.AUTHORITY, make.PRINCIPAL, record, Ring(*keys), resealed).material.expose()


@pytest.mark.parametrize("key", [NEW, P256], ids=["x-wing", "dhkem-p256"])
def test_the_new_key_alone_opens_what_was_sealed_again(key: PrivateSealingKey) -> None:
    """And the old key alone what was escrowed."""
    record = make.record()
    assert material(record, sealed(record, key), keys=(key,)) == MATERIAL
    assert material(record, sealed(record, key), keys=(OLD,)) == MATERIAL


def test_the_newest_blob_that_there_is_a_key_for_comes_first() -> None:
    """It alone is asked for while it opens, whatever is newer and cannot be opened here."""
    record = make.record(blob=b"damaged")
    good = sealed(make.record(), NEW)
    intact = make.record()
    newest, older = sealed(intact, P256), sealed(intact, NEW)
    asked: list[str] = []

    class Watching(Ring):
        def opener(self, kid: str) -> PrivateSealingKey:
            asked.append(kid)
            return super().opener(kid)

    opened(make.AUTHORITY, make.PRINCIPAL, intact, Watching(NEW, OLD), (newest, older))
    assert asked == [NEW.kid]
    with pytest.raises(BlobInvalid):
        material(record, good, keys=(NEW, OLD))


@pytest.mark.parametrize("damage", ["lifted", "empty", "other material", "suite", "no suite"])
def test_a_false_blob_does_not_hide_the_others(damage: str) -> None:
    """Each is tried, and what opens is what was signed for."""
    record = make.record()
    good = sealed(record, NEW)
    false = {
        "lifted": sealed(make.record(), P256),
        "empty": KeyBlob(P256.kid, "dhkem-p256", b""),
        "other material": sealed(record, P256, b"the attacker's"),
        "suite": sealed(record, P256)._replace(suite="x-wing"),
        "no suite": sealed(record, P256)._replace(suite="?"),
    }[damage]
    assert material(record, false, good, keys=(NEW, P256)) == MATERIAL
    assert material(record, false, keys=(OLD, P256)) == MATERIAL


@pytest.mark.parametrize(
    ("false", "keys", "error"),
    [
        (sealed(make.record(), NEW), (NEW,), BlobInvalid),
        (KeyBlob("0" * 32, "x-wing", b""), (), KeyUnknown),
        (KeyBlob("0" * 32, "x-wing", b""), (NEW,), KeyUnknown),
    ],
)
def test_where_nothing_opens_the_error_is_that_of_the_first_tried(
    false: KeyBlob, keys: tuple[PrivateSealingKey, ...], error: type[PermanentError]
) -> None:
    """The blob that there is a key for was tried before the one whose key is missing."""
    with pytest.raises(error):
        material(make.record(), false, keys=keys)


def test_another_key_in_the_right_place_is_never_given() -> None:
    """It opens, and the fingerprint is of another."""
    record = make.record()
    with pytest.raises(FingerprintMismatch):
        material(record, sealed(record, NEW, b"the attacker's"), keys=(NEW,))


def test_a_device_that_does_not_answer_says_nothing_about_any_blob() -> None:
    """No other blob is tried in its place."""

    class Silent(Ring):
        def opener(self, kid: str) -> PrivateSealingKey:
            raise NoAnswer(kid)

    record = make.record()
    with pytest.raises(NoAnswer):
        opened(make.AUTHORITY, make.PRINCIPAL, record, Silent(NEW, OLD), (sealed(record, NEW),))


@pytest.mark.parametrize("suite", Suite)
def test_the_longest_blob_has_room(suite: Suite) -> None:
    """Of the largest key material, sealed to a key of either suite."""
    key = new_key(suite)
    blob = seal_material(Secret(bytes(65_536)), BlobContext("a", "b", "c", key.kid, suite), key.public_key).blob
    assert len(blob) <= BLOB_BYTES_MAX
