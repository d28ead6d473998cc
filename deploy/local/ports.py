"""Free ports on the loopback interface."""

import random
import socket

# Below the ports that Linux gives to outgoing connections (32768 and up), so that none of those takes one
# between the choice and the listen; also clear of 35672-35682, which RabbitMQ's command-line tools take.
PORT_MIN, PORT_MAX = 20_000, 31_999
_TRIES_MAX = 200


def is_free(port: int) -> bool:
    """Tell whether a server could listen on 127.0.0.1:port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose(names: tuple[str, ...], wanted: dict[str, int]) -> dict[str, int]:
    """Return a free port for each name: the wanted one while it is free, else one at random.

    Raises:
        OSError: no free port turned up.
    """
    chosen: dict[str, int] = {}
    for name in names:
        candidates = [random.SystemRandom().randint(PORT_MIN, PORT_MAX) for _ in range(_TRIES_MAX)]
        if name in wanted:
            candidates.insert(0, wanted[name])
        free = (port for port in candidates if port not in chosen.values() and is_free(port))
        if (port := next(free, None)) is None:
            raise OSError(f"no free port between {PORT_MIN} and {PORT_MAX} on 127.0.0.1")
        chosen[name] = port
    return chosen
