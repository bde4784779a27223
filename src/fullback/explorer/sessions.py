"""The sessions of a server: one for every tab."""

from __future__ import annotations

import threading
from collections import OrderedDict

from fullback.explorer.config import ServerConfig
from fullback.explorer.session import Session

MOST_SESSIONS = 24


class Sessions:
    """The sessions of a server; the ones that were used longest ago make room for new ones."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self._lock = threading.Lock()
        self._all: OrderedDict[str, Session] = OrderedDict()

    def new(self) -> Session:
        """Return a new session."""
        session = Session(self.config)
        with self._lock:
            self._all[session.id] = session
            left = [self._all.popitem(last=False)[1] for _ in range(len(self._all) - MOST_SESSIONS)]
        for old in left:
            if old.trainer is not None:
                old.trainer.pause()
        return session

    def find(self, name: str) -> Session | None:
        """Return the session of that id, or None where there is none any more."""
        with self._lock:
            if name in self._all:
                self._all.move_to_end(name)
            return self._all.get(name)

    def close(self) -> None:
        """Pause every run."""
        with self._lock:
            every = list(self._all.values())
        for session in every:
            if session.trainer is not None:
                session.trainer.pause()
