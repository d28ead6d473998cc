"""The agent: escrows keys by itself, keeps them in a spool until it holds receipts for them, and gets them back."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from strongroom_agent.agent import Agent
    from strongroom_agent.enrolment import enrol
    from strongroom_agent.home import Home
    from strongroom_agent.packing import KeyToEscrow


__all__ = ["Agent", "Home", "KeyToEscrow", "enrol"]

_HOMES: Final = {
    "Agent": "strongroom_agent.agent",
    "Home": "strongroom_agent.home",
    "KeyToEscrow": "strongroom_agent.packing",
    "enrol": "strongroom_agent.enrolment",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
