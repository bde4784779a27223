"""A program's own copies of a network's arrays, and whether they are still what the network has.

Users write into ``net.parameters["conv1.weight"]`` in place, of which nobody is told. To compare
all numbers takes as long as a prediction. But who writes has been handed the array before: a copy
can only be out of date if arrays were handed out since it was compared, or if somebody had this one
then, and so held a reference to it. ``Arrays`` knows both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fullback.arrays import Arrays


class Copies:
    """Copies of some arrays.

    Parameters
    ----------
    copies : for each, where it comes from, its name there, and the copy
    """

    def __init__(self, copies: Sequence[tuple[Arrays, str, NDArray[np.float32]]]) -> None:
        self._copies = copies
        self._sources = list({id(arrays): arrays for arrays, _, _ in copies}.values())
        self._foreign = not all(arrays.own_memory() for arrays in self._sources)
        self._marks: list[object] = []  # when they were last compared
        self._held: list[str] = []  # and which arrays somebody had then
        self._changed = True

    def load(self) -> None:
        """Copy everything."""
        self._marks, self._changed = [], True
        for arrays, name, copy in self._copies:
            arrays.copy_to(name, copy)

    def save(self) -> None:
        """Copy everything back."""
        for arrays, name, copy in self._copies:
            arrays[name] = copy

    def refresh(self) -> bool:
        """Copy what has changed; return whether anything has since ``settle`` was called."""
        marks = [arrays.mark for arrays in self._sources]
        held: list[str] = []
        for arrays in self._sources:  # after the marks are read
            held += arrays.held()
        every = self._foreign or marks != self._marks
        if every or held or self._held:
            for arrays, name, copy in self._copies:
                suspect = every or name in held or name in self._held
                if suspect and not arrays.equals(name, copy):
                    self._changed = True
                    arrays.copy_to(name, copy)
            self._marks, self._held = marks, held
        return self._changed

    def settle(self) -> None:
        """Note that what is made of the copies has been made."""
        self._changed = False
