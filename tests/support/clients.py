"""Clients of a server that do not behave."""

import itertools
import socket


class Silent:
    """Connections that send only so much, one as the next or in turns."""

    def __init__(self, port, count, *sent):
        self.all = []
        for _, text in zip(range(count), itertools.cycle(sent), strict=False):
            own = socket.create_connection(("127.0.0.1", port), timeout=10)
            own.sendall(text)
            self.all.append(own)

    def __enter__(self):
        return self.all

    def __exit__(self, *error):
        for own in self.all:
            own.close()


def ended(connection, seconds):
    """Whether the server ends a connection within so many seconds."""
    connection.settimeout(seconds)
    try:
        while connection.recv(2**16):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True
