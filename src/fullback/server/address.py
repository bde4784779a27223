"""Where a server listens, and which names stand for this machine."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

from fullback.errors import OptionError

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
"""Names of this machine, as a request's Host has them."""


def listen(host: str, ports: Sequence[int]) -> socket.socket:
    """Return a socket that is bound to the first port that is free.

    Raises
    ------
    OptionError
        The host is not an address of this machine, or every port is taken.
    """
    if not host.strip():
        raise OptionError("the host to listen at is empty; give 127.0.0.1, or leave it out")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for place in ports:
        # Without the protocol's number asyncio leaves TCP_NODELAY out, and each answer waits 40 ms.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, place))
        except OSError as error:
            listener.close()
            if place != ports[-1]:
                continue
            where = "address" if is_loopback(host) else "address of this machine"
            raise OptionError(
                f"cannot listen at {host}, port {place} ({error.strerror or error}); give another "
                f"--port, or another {where}"
            ) from None
        return listener
    raise AssertionError("there is always a last port")


def url(host: str, port: int) -> str:
    """Return the address of a server's root, as others reach it where it listens everywhere."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 -- compared, not listened to
        host = _own_address()
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{port}/"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine alone."""
    if f"[{host}]" in LOOPBACK or host in LOOPBACK:
        return True
    return is_address(host) and ipaddress.ip_address(host).is_loopback


def is_address(host: str) -> bool:
    """Whether a host is a number, and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _own_address() -> str:
    """Return the address by which others reach this machine; without a network, 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # chooses the way there, and sends nothing
        except OSError:
            return "127.0.0.1"
        address: str = probe.getsockname()[0]
        return address
