"""What the link over a broker makes of silence."""

from typing import cast

import pytest

from strongroom.broker import Requester
from strongroom.errors import NoAnswer
from strongroom_agent.link import BrokerLink
from strongroom_agent.patience import Silence


class Mute:
    """A requester whose questions nobody answers."""

    async def answer(self, _message_id: str, timeout_seconds: float) -> bytes:
        """Say so, with the time of this one attempt."""
        raise NoAnswer(f"no answer from broker:5671 within {timeout_seconds:g} s")


async def test_silence_names_the_broker_and_not_the_time_of_one_attempt() -> None:
    """The whole call alone knows for how long it has asked."""
    link = BrokerLink(cast("Requester", Mute()), "broker:5671")
    with pytest.raises(Silence) as caught:
        await link.answer("id", 14.903)
    assert caught.value.message == "no answer from broker:5671"
    assert caught.value.where == "broker:5671"
