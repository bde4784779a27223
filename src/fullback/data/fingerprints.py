"""Which images of a data set are equal: by a fingerprint of 8 bytes each, then by their pixels."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from fullback.data.dataset import Images

_AT_ONCE = 2**24  # bytes of images that are compared together


def fingerprint_of(image: Images) -> int:
    """Return a number that is the same for images that are equal to the bit."""
    digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8).digest()
    return int.from_bytes(digest, "little")


class Fingerprints:
    """The fingerprints of images, to find equal ones; of millions they take 16 bytes each.

    Parameters
    ----------
    images : of shape (N, ...)
    prints : their fingerprints, of shape (N,)
    """

    def __init__(self, images: Images, prints: NDArray[np.uint64]) -> None:
        self.images = images
        self.order = np.argsort(prints, kind="stable")
        self.prints = prints[self.order]

    def repeated(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the images that one before them equals, and the first that does, by place."""
        same = np.flatnonzero(self.prints[1:] == self.prints[:-1]) + 1
        begins = np.diff(same, prepend=-1) > 1  # of images that have one fingerprint together
        if len(same):
            begins[0] = True
        starts = same[begins][np.cumsum(begins) - 1] - 1
        places, first = self.order[same], self.order[starts]
        sure = _equal(self.images, places, self.images, first)
        order = np.argsort(places[sure], kind="stable")
        return places[sure][order], first[sure][order]

    def shared(self, images: Images, prints: NDArray[np.uint64]) -> list[int]:
        """Return which of other images are among these; of equal ones the first."""
        _, first = np.unique(prints, return_index=True)
        places = np.sort(first)
        found = np.searchsorted(self.prints, prints[places])
        there = self.prints[np.minimum(found, len(self.prints) - 1)] == prints[places]
        places, found = places[there], found[there]
        found_list: list[int] = places[
            _equal(images, places, self.images, self.order[found])
        ].tolist()
        return found_list


def _equal(
    x: Images, places: NDArray[np.int64], others: Images, other_places: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether images are equal to the bit, pair by pair."""
    same = np.zeros(len(places), bool)
    step = max(1, _AT_ONCE // x[:1].nbytes)
    for start in range(0, len(places), step):
        some = slice(start, start + step)
        a, b = (
            np.ascontiguousarray(images[own]).reshape(len(own), -1).view(np.uint8)
            for images, own in ((x, places[some]), (others, other_places[some]))
        )
        same[some] = (a == b).all(axis=1)
    return same
