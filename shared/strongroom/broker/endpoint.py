"""Where a broker is, and how to get in: an AMQP URL that never shows, and perhaps a certificate."""

import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

from strongroom.errors import ConfigurationInvalid

_DEFAULT_PORTS = {"amqp": 5672, "amqps": 5671}


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """What a client logs in by instead of a password (SASL EXTERNAL): a certificate and its private key, PEM files.

    The broker takes the certificate's common name for the account. The key file is not encrypted.
    """

    file: Path
    key_file: Path


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a broker is and how to get in. Only `where` may be shown: `url` holds the password."""

    where: str
    name: str
    timeout_seconds: float
    url: str = field(repr=False)
    ca_file: Path | None = field(repr=False)
    certificate: ClientCertificate | None = field(default=None, repr=False)

    @classmethod
    def parse(
        cls,
        url: str,
        *,
        ca_file: Path | None,
        name: str,
        timeout_seconds: float,
        certificate: ClientCertificate | None = None,
    ) -> Self:
        """Check an AMQP URL without ever repeating it.

        Raises:
            ConfigurationInvalid: not an `amqp` or `amqps` URL with a host, a character in the password that
                must be percent-encoded, or a CA file or a certificate for a URL that does not use TLS.
        """
        address = _address(url)
        if address is None:
            raise ConfigurationInvalid(
                "the broker URL is not of the form amqps://user:password@host:port/vhost",
                hint="percent-encode special characters in user and password",
            )
        scheme, where = address
        if ca_file is not None and scheme != "amqps":
            raise ConfigurationInvalid(f"a CA file is set, but the broker URL for {where} does not use amqps")
        if certificate is not None and scheme != "amqps":
            raise ConfigurationInvalid(f"a certificate is set, but the broker URL for {where} does not use amqps")
        return cls(
            where=where,
            name=name,
            timeout_seconds=timeout_seconds,
            url=url,
            ca_file=ca_file,
            certificate=certificate,
        )

    @property
    def login_url(self) -> str:
        """The URL as the driver wants it: with a certificate it holds no user, no password, and the mechanism."""
        if self.certificate is None:
            return self.url
        parts = urlsplit(self.url)
        query = "&".join(part for part in ("auth=external", parts.query) if part)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query).geturl()

    def is_account_of(self, name: str) -> bool:
        """Whether the broker knows whoever logs in here as `name`; a certificate is taken to be of that name."""
        return self.certificate is not None or unquote(urlsplit(self.url).username or "") == name

    def tls(self) -> ssl.SSLContext | None:
        """Return a context that verifies chain and host name, or None for a URL without TLS.

        Raises:
            ConfigurationInvalid: the CA file, the client's certificate or its key cannot be read or does not hold
                what it should.
        """
        if urlsplit(self.url).scheme != "amqps":
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise ConfigurationInvalid(
                f"cannot read the broker's CA file {self.ca_file}: {error.strerror}"
            ) from None
        if self.certificate is not None:
            file, key_file = self.certificate.file, self.certificate.key_file
            try:
                # A password is given so that OpenSSL does not ask for one on the terminal.
                context.load_cert_chain(file, key_file, password=b"")
            except OSError as error:
                words = error.reason if isinstance(error, ssl.SSLError) else error.strerror
                raise ConfigurationInvalid(
                    f"cannot use the broker certificate {file} with the key {key_file}: {words}",
                    hint="give a PEM certificate and the unencrypted PEM private key that belongs to it",
                ) from None
        return context


def _address(url: str) -> tuple[str, str] | None:
    """Return the scheme and `host:port/vhost` of an AMQP URL, or None; an error's text would repeat it."""
    with suppress(ValueError, KeyError):
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
        # A "/", "?" or "#" inside a password ends the authority part early; what follows is still password.
        misplaced = "@" in parts.path + parts.query + parts.fragment
        if parts.scheme in _DEFAULT_PORTS and parts.hostname and not misplaced:
            return parts.scheme, printable(f"{parts.hostname}:{port}/{unquote(parts.path.removeprefix('/'))}")
    return None


def printable(text: str) -> str:
    """Return text from elsewhere without line breaks and terminal controls, a `?` for each."""
    return "".join(character if character.isprintable() else "?" for character in text)
