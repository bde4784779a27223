"""What the bodies of requests may take: 60 seconds each, and all together 128 MiB."""

from __future__ import annotations

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from fullback.server.asgi import Receive, Scope

BODY_SECONDS = 60.0
MOST_BYTES_IN_FLIGHT = 128 * 2**20


class Bodies:
    """Reads the bodies of requests, so many bytes at a time."""

    def __init__(self) -> None:
        self.in_flight = 0

    async def read(self, scope: Scope, receive: Receive, most: int) -> bytes:
        """Return a request's body of at most so many bytes.

        Raises
        ------
        HTTPException
            It has more, comes too slowly, or others take all the room.
        ClientDisconnect
            It broke off.
        """
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 18 or int(length) > most:
            raise _too_much(most)
        part, more = await _part(receive)  # for which the connection waits only so long
        if not more and len(part) <= most:
            return part
        return await self._read_on([part], receive, most)

    async def _read_on(self, parts: list[bytes], receive: Receive, most: int) -> bytes:
        """Return a body of which the first part is there."""
        size, part, more = 0, parts[0], True
        try:
            with anyio.fail_after(BODY_SECONDS):
                while True:
                    size += len(part)
                    self.in_flight += len(part)
                    if size > most:
                        raise _too_much(most)
                    if self.in_flight > MOST_BYTES_IN_FLIGHT:
                        raise closing(503, "the server is busy with other files; try again")
                    if not more:
                        return b"".join(parts)
                    part, more = await _part(receive)
                    parts.append(part)
        except TimeoutError:
            raise closing(
                408, f"the request took more than {BODY_SECONDS:g} seconds to arrive; try again"
            ) from None
        finally:
            self.in_flight -= size


async def _part(receive: Receive) -> tuple[bytes, bool]:
    """Return a part of a body, and whether there are more."""
    message = await receive()
    if message["type"] != "http.request":
        raise ClientDisconnect
    return message.get("body", b""), message.get("more_body", False)


def _too_much(most: int) -> HTTPException:
    return closing(
        413, f"the request has more than {most // 2**20} MiB, which is all that is taken here"
    )


def closing(status: int, reason: str) -> HTTPException:
    """Return an answer after which the rest of the request is not waited for."""
    return HTTPException(status, reason, headers={"Connection": "close"})
