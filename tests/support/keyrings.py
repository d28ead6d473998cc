"""Keyrings for tests: what those of one key or none leave out, and real tokens (tests/support/tokens.py)."""

from strongroom.crypto.rsa import Unwrapper
from strongroom.errors import KeyUnknown


class NoTransport:
    """The part of a keyring that has to do with transport keys, where there are none."""

    transport_kids: frozenset[str] = frozenset()

    def transport(self, kid: str) -> Unwrapper:
        """Hold nothing."""
        raise KeyUnknown(f"this keyring does not hold the transport key {kid}")
