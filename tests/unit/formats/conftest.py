from functools import cache

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from strongroom.crypto.rsa import PrivateRsaKey


@cache
def _short_key() -> PrivateRsaKey:
    return PrivateRsaKey(rsa.generate_private_key(65537, 1024))  # noqa: S505 - the point of it


@pytest.fixture
def short_key() -> PrivateRsaKey:
    """A key pair of 1,024 bits, as they were made long ago."""
    return _short_key()
