"""What the bodies of statements are made of: field types, strict models, and how they are read (SPEC 1.5). Pure."""

import re
from base64 import b64encode
from enum import StrEnum
from typing import Annotated, ClassVar, TypeVar

import uuid_utils
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
)

from strongroom import limits
from strongroom.crypto.sealing import Suite
from strongroom.crypto.signing import PUBLIC_KEY_BYTES
from strongroom.errors import LimitExceeded, MalformedStatement
from strongroom.statements import Statement, canonical_json, decode_base64, parse_json

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def plain_text(value: str) -> str:
    """Return a text that a body may hold; ValueError for control characters and unpaired surrogates (SPEC 1.5)."""
    if _CONTROL.search(value):
        raise ValueError("holds a control character or an unpaired surrogate")
    return value


def printable(text: str) -> str:
    """Return text with every character that a statement must not hold replaced by `?`, for messages to people."""
    return _CONTROL.sub("?", text)


def _decoded(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    try:
        return decode_base64(value, "value")
    except MalformedStatement as error:
        raise ValueError(error.message.removeprefix("value: ")) from None


def _public_key(value: bytes) -> bytes:
    if len(value) != PUBLIC_KEY_BYTES:
        raise ValueError(f"must be {PUBLIC_KEY_BYTES} bytes")
    return value


def _encoded(value: bytes) -> str:
    return b64encode(value).decode()


Bytes = Annotated[bytes, BeforeValidator(_decoded), PlainSerializer(_encoded, when_used="json")]
PublicKey = Annotated[Bytes, AfterValidator(_public_key)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
KeyId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Id = Annotated[str, Field(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")]
Authority = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{2,127}$")]
Principal = Annotated[str, Field(min_length=3, max_length=64, pattern=r"^[a-z0-9-]*$")]
Time = Annotated[int, Field(ge=0, le=limits.INTEGER_MAX)]
LeafIndex = Annotated[int, Field(ge=0, le=limits.INTEGER_MAX)]
Code = Annotated[str, Field(pattern=r"^[a-z_]{1,64}$")]
Kind = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")]
Name = Annotated[str, Field(min_length=1, max_length=limits.NAME_CHARACTERS_MAX), AfterValidator(plain_text)]
Description = Annotated[str, Field(max_length=limits.DESCRIPTION_CHARACTERS_MAX), AfterValidator(plain_text)]
SerialNumber = Annotated[str, Field(max_length=limits.SERIAL_NUMBER_CHARACTERS_MAX), AfterValidator(plain_text)]
Algorithm = Annotated[str, Field(max_length=limits.ALGORITHM_CHARACTERS_MAX), AfterValidator(plain_text)]
Reason = Annotated[str, Field(max_length=limits.REASON_CHARACTERS_MAX), AfterValidator(plain_text)]
LabelName = Annotated[
    str, Field(min_length=1, max_length=limits.LABEL_NAME_CHARACTERS_MAX), AfterValidator(plain_text)
]
LabelValue = Annotated[str, Field(max_length=limits.LABEL_VALUE_CHARACTERS_MAX), AfterValidator(plain_text)]
Labels = Annotated[dict[LabelName, LabelValue], Field(max_length=limits.LABELS_MAX)]
SuiteText = Annotated[Suite, Field(strict=False)]  # JSON carries enumerations as text, which strict mode refuses


class Capacity(StrEnum):
    """In which capacity somebody asks or objects."""

    PRINCIPAL = "principal"
    OFFICER = "officer"


CapacityText = Annotated[Capacity, Field(strict=False)]


def new_id() -> str:
    """Return a fresh UUIDv7 (RFC 9562) in lower-case text form."""
    return str(uuid_utils.uuid7())


class Part(BaseModel):
    """An object inside a body: unknown members refused, values never coerced, inputs never shown in errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class Body(Part):
    """The body of a statement; `TYPE` is its media type."""

    TYPE: ClassVar[str]

    authority: Authority

    def to_bytes(self) -> bytes:
        """Write the body as its signer does: sorted members, no white space (SPEC 1.5)."""
        return canonical_json(self.model_dump(mode="json"))


B = TypeVar("B", bound=Body)
P = TypeVar("P", bound=BaseModel)


def media_type(noun: str) -> str:
    """Return the media type of a statement, e.g. `application/vnd.strongroom.escrow.v1+json`."""
    return f"application/vnd.strongroom.{noun}.v1+json"


def parse_body(statement: Statement, model: type[B]) -> B:
    """Parse the body bytes of a statement as `model` (SPEC 1.5).

    Raises MalformedStatement naming the first field at fault, also when the statement's type is not the
    model's, or LimitExceeded naming the field and its limit.
    """
    if statement.type != model.TYPE:
        raise MalformedStatement(f"payloadType: is {statement.type[:128]!r}, must be {model.TYPE!r}")
    return validated(parse_json(statement.body, what="body"), model)


def validated(document: object, model: type[P]) -> P:
    """Check a parsed JSON document against a model; errors as `parse_body`. Inputs never appear in them."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
    # Label names and unknown members' names are the sender's words: of any length, and perhaps a secret.
    ours = _member_names(Part) | model.model_fields.keys()
    field = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or part in ours) or "body"
    for name, unit in _LIMIT_UNITS.items():
        if first["type"] == name:
            context = first.get("ctx", {})
            bound = next((context[k] for k in ("max_length", "min_length", "le", "ge") if k in context), "")
            edge = "at least" if {"min_length", "ge"} & context.keys() else "at most"
            raise LimitExceeded(f"{field}: the limit is {edge} {bound} {unit}".rstrip())
    if first["type"] == "extra_forbidden":
        raise MalformedStatement(f"{field}: an unknown member")
    if first["type"] == "union_tag_invalid":
        raise MalformedStatement(f"{field}: of an unknown type")
    raise MalformedStatement(f"{field}: {first['msg'].removeprefix('Value error, ')}")


def _member_names(part: type[Part]) -> set[str]:
    return set(part.model_fields).union(*map(_member_names, part.__subclasses__()))


_LIMIT_UNITS = {
    "string_too_long": "characters",
    "string_too_short": "characters",
    "bytes_too_long": "bytes",
    "bytes_too_short": "bytes",
    "too_long": "entries",
    "too_short": "entries",
    "less_than_equal": "",
    "greater_than_equal": "",
}
