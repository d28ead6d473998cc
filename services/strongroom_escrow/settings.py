"""What the escrow worker is told."""

from typing import Annotated

from pydantic import Field, field_validator

from strongroom.settings import QueueWorkerSettings


class EscrowSettings(QueueWorkerSettings):
    """Settings of the escrow worker, beside those that both workers have.

    prefetch_count: messages the broker hands over before any is acknowledged; bounds the worker's memory.
    batch_messages_max: messages in one transaction. batch_wait_ms: how long to wait for more of them
    while they keep coming; a lone message is not kept waiting.
    escrow_require_user_id: refuse what was not sent under a broker account of the sender's own name.
    sealing_keys_dir, keyring: refused; they belong to the recovery worker alone.
    """

    prefetch_count: Annotated[int, Field(ge=1, le=2000)] = 400
    batch_messages_max: Annotated[int, Field(ge=1, le=2000)] = 200
    batch_wait_ms: Annotated[int, Field(ge=0, le=1000)] = 10
    escrow_require_user_id: bool = False
    sealing_keys_dir: str | None = None
    keyring: str | None = None

    @field_validator("sealing_keys_dir", "keyring")
    @classmethod
    def _no_sealing_keys(cls, value: str | None) -> str | None:
        if value is not None:
            raise ValueError("the escrow worker must not be near sealing private keys; unset it")
        return value
