"""Augmentation: every time an image is trained on, it is another view of it.

With (h, w) a pixel of the view, counted from its middle, and z = 1 / size, it is taken from::

    row    = z ( cos(angle) h' + sin(angle) w') + shift down  + field down (h, w)
    column = z (-sin(angle) h' + cos(angle) w') + shift right + field right (h, w)
    w'     = w + shear h, after flips, which turn the sign of h or w

by bilinear interpolation, and is ``fill`` outside of the image. Angle, size, shear, shifts, flips
and field are drawn anew for every image and epoch, each from a range of its own.

The elastic field is a random one, smoothed: Simard, Steinkraus and Platt (2003) convolve a uniform
draw for every pixel with a Gaussian of width sigma and multiply it by alpha. Here a cubic B-spline,
which is a Gaussian's near relation, has a uniform draw at every knot. With knots sigma sqrt(3)
apart the spline has the Gaussian's width, and the draws are scaled so that displacements have the
size, alpha / (2 sigma sqrt(3 pi)), that they have there. A 28x28 image at sigma 4 takes 98 draws
in place of 1568.

Every draw is a function of (seed, epoch, image) and its number alone, so it does not depend on the
order of the images, the batch or the thread.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fullback.errors import OptionError, ShapeError
from fullback.layers.base import Array
from fullback.layers.dropout import GOLDEN, split_mix
from fullback.options import read_options, require_numbers, require_whole, shown, take_plain
from fullback.passes import Seed, random_key, scaled

# Which draw of an image is for what.
SHIFT_ROWS, SHIFT_COLUMNS, ANGLE, SIZE, SHEAR, CROP_ROWS, CROP_COLUMNS = 0, 1, 2, 3, 4, 5, 6
FLIP_ROWS, FLIP_COLUMNS, ERASED_ROW, ERASED_COLUMN, FIELD = 7, 8, 9, 10, 16

GROUP = 16
"""Images of a batch among which mixup takes the one to mix in: the next in the group."""

_FLIPS = ("none", "horizontal", "vertical", "both")
_KEY, _MIXTURE_KEY = 2**32 - 1, 2**32 - 2  # beside layers' places in what draws depend on
_SPLINE_POWER = 151 / 315  # integral of a cubic B-spline's square
_MOST_KNOTS = 2**16
_MOST_PIXELS = 10_000


@dataclass(frozen=True, repr=False)
class Augment:
    """How far views differ from their image. By default not at all.

    Parameters
    ----------
    shift : pixels down or up, and to either side, at most
    rotate : degrees to either side, at most, up to 180
    scale : share by which a view is larger or smaller, at most, in [0, 1)
    shear : pixels that a row may move against the next one, at most
    flip : "none", "horizontal" (left for right), "vertical" or "both"; each in half of the views
    crop : whole pixels down or up, and to either side, at most; what other libraries call a random
        crop after padding by so many
    erase : side of a square that is filled, its centre anywhere (DeVries and Taylor 2017)
    elastic : alpha, the strength of an elastic distortion; Simard's is 34
    sigma : the width over which elastic displacements go together, in pixels
    fill : what is outside of the image and in the erased square: 0 is black, 1 is white in uint8
        images

    Raises
    ------
    OptionError
        An option is out of range.
    """

    shift: float = 0.0
    rotate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    flip: str = "none"
    crop: int = 0
    erase: int = 0
    elastic: float = 0.0
    sigma: float = 4.0
    fill: float = 0.0

    def __post_init__(self) -> None:
        take_plain(self)
        require_numbers(
            self,
            shift="[0, 1e4]",
            rotate="[0, 180]",
            scale="[0, 1)",
            shear="[0, 10]",
            elastic="[0, 1e4]",
            sigma="[0.5, 1e4]",
            fill="[-1e4, 1e4]",
        )
        require_whole("Augment: crop", self.crop, 0)
        require_whole("Augment: erase", self.erase, 0)
        if max(self.crop, self.erase) > _MOST_PIXELS:
            raise OptionError(f"Augment: crop and erase are at most {_MOST_PIXELS:,} pixels")
        if self.flip not in _FLIPS:
            raise OptionError(
                f"Augment: flip must be one of {', '.join(_FLIPS)}, got {self.flip!r}"
            )

    def __repr__(self) -> str:
        return shown(self)

    @classmethod
    def parse(cls, text: str) -> Augment:
        """Read ``"shift=2 rotate=10 flip=horizontal"``.

        Raises
        ------
        OptionError
            An option is unknown, given twice or out of range.
        """
        if not isinstance(text, str):
            raise OptionError(f"augmentation is text like 'shift=2 rotate=10', got {text!r}")
        known = [field.name for field in dataclasses.fields(cls)]
        words = re.sub(r"\s*=\s*", "=", re.sub(r"[,;]", " ", text)).split()
        return cls(**read_options("augmentation", words, known))

    @property
    def moves(self) -> bool:
        """Whether a view's pixels come from elsewhere in the image."""
        amounts = (self.shift, self.rotate, self.scale, self.shear, self.crop, self.elastic)
        return any(amounts) or self.flip != "none"

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise ShapeError unless images of this shape have rows and columns.

        Raises
        ------
        ShapeError
        OptionError
            The elastic field would have too many knots.
        """
        if len(shape) != 3:
            raise ShapeError(f"augmentation needs images (C, H, W), the network takes {shape}")
        if self.elastic and math.prod(map(self.knots, shape[1:])) > _MOST_KNOTS:
            raise OptionError(
                f"Augment: sigma (={self.sigma:g}) is too small for images of {shape[1]} x "
                f"{shape[2]}; give a larger one"
            )

    def amounts(self) -> tuple[float, ...]:
        """Return the options as the engine takes them."""
        return (
            self.shift,
            self.shift,
            math.radians(self.rotate),
            self.scale,
            self.shear,
            self.crop,
            0.5 * (self.flip in ("vertical", "both")),
            0.5 * (self.flip in ("horizontal", "both")),
            self.fill,
            self.elastic / (2 * self.sigma * math.sqrt(math.pi) * _SPLINE_POWER),
        )

    def knots(self, length: int) -> int:
        """Return how many knots the elastic field has along an axis of so many pixels."""
        return int((length - 1) / (self.sigma * math.sqrt(3))) + 4 if self.elastic else 0

    def spline(self, length: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the first knot and the four weights of every pixel along an axis.

        Returns
        -------
        first : ndarray of shape (length,)
        weights : ndarray of shape (length, 4)
        """
        place = np.arange(length) / (self.sigma * math.sqrt(3))
        first = place.astype(np.int64)
        t = place - first
        weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
        return first, (np.stack(weights, axis=1) / 6).astype(np.float32)

    def apply(
        self, x: Array, *, seed: int = 0, epoch: int = 1, images: NDArray[np.int64] | None = None
    ) -> Array:
        """Return views of images, as training with this seed sees them in this epoch.

        Parameters
        ----------
        x : images of shape (N, C, H, W), uint8 or float
        seed, epoch : those of ``fit``; epochs are counted from 1
        images : the images' places in the training set, of shape (N,); 0, 1, 2, ... by default

        Returns
        -------
        ndarray of shape (N, C, H, W)
            float32 (float64 of float64 images); uint8 is divided by 255.

        Raises
        ------
        ShapeError
            x has another shape.
        """
        x = np.asarray(x)
        if x.ndim != 4:
            raise ShapeError(f"x has shape {x.shape}; expected images (N, C, H, W)")
        self.check_shape(x.shape[1:])
        places = np.arange(len(x)) if images is None else np.asarray(images)
        if places.shape != (len(x),) or places.dtype.kind not in "iu" or places.min(initial=0) < 0:
            raise ShapeError(
                f"images must be {len(x)} places in a training set, got {images!r:.100}"
            )
        require_whole("seed", seed, 0)
        require_whole("epoch", epoch, 0)
        values = scaled(x, np.dtype(np.float64 if x.dtype == np.float64 else np.float32))
        return self.view(values, image_keys((seed, epoch), places))

    def view(self, x: Array, keys: NDArray[np.uint64]) -> Array:
        """Return views of images, given the keys of their draws."""
        if self.moves:
            x = self._moved(x, keys)
        if self.erase:
            x = self._erased(x, keys)
        return x

    def _moved(self, x: Array, keys: NDArray[np.uint64]) -> Array:
        images, _, height, width = x.shape
        shift_rows, shift_columns, turn, size, shear, crop, flip_rows, flip_columns, fill, _ = (
            self.amounts()
        )

        def one(values: Array) -> Array:  # a number an image, beside its rows and columns
            return values.astype(x.dtype)[:, None, None]

        angle = one(turn * _either_way(keys, ANGLE))
        zoom = 1 / (1 + one(size * _either_way(keys, SIZE)))
        slant = one(shear * _either_way(keys, SHEAR))
        cells = np.float32(2 * crop + 1)
        down = one(shift_rows * _either_way(keys, SHIFT_ROWS))
        down = down + one(np.floor(cells * draws(keys, CROP_ROWS))) - crop
        right = one(shift_columns * _either_way(keys, SHIFT_COLUMNS))
        right = right + one(np.floor(cells * draws(keys, CROP_COLUMNS))) - crop
        h = (np.arange(height) - (height - 1) / 2).astype(x.dtype)[:, None]
        w = (np.arange(width) - (width - 1) / 2).astype(x.dtype)
        h = one(np.where(draws(keys, FLIP_ROWS) < flip_rows, -1, 1)) * h  # (N, H, 1)
        w = one(np.where(draws(keys, FLIP_COLUMNS) < flip_columns, -1, 1)) * w  # (N, 1, W)
        w = w + slant * h
        rows = zoom * (np.cos(angle) * h + np.sin(angle) * w) + down + (height - 1) / 2
        columns = zoom * (np.cos(angle) * w - np.sin(angle) * h) + right + (width - 1) / 2
        if self.elastic:
            field = self._field(keys, height, width)  # (2, N, H, W)
            rows, columns = rows + field[0], columns + field[1]
        rows, columns = rows.clip(-1, height), columns.clip(-1, width)
        top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)  # (N, H, W)
        below, beside = (rows - top)[:, None], (columns - left)[:, None]
        ring = ((0, 0), (0, 0), (1, 2), (1, 2))
        framed = np.pad(x, ring, constant_values=fill).transpose(0, 2, 3, 1)
        n = np.arange(images)[:, None, None]
        corners = [
            framed[n, top + 1 + r, left + 1 + s].transpose(0, 3, 1, 2)
            for r in (0, 1)
            for s in (0, 1)
        ]
        upper = corners[0] + beside * (corners[1] - corners[0])
        lower = corners[2] + beside * (corners[3] - corners[2])
        views: Array = (upper + below * (lower - upper)).astype(x.dtype)
        return views

    def _field(self, keys: NDArray[np.uint64], height: int, width: int) -> Array:
        """Return the elastic field, down and right, of shape (2, N, H, W)."""
        down, across = self.knots(height), self.knots(width)
        amount, count = self.amounts()[-1], 2 * down * across
        values = [amount * _either_way(keys, FIELD + n) for n in range(count)]
        knots = np.stack(values, axis=1).reshape(len(keys), 2, down, across)
        four = np.arange(4)
        first, weights = self.spline(height)
        rows = np.einsum("nbhkx,hk->nbhx", knots[:, :, first[:, None] + four], weights)
        first, weights = self.spline(width)
        field: Array = np.einsum("nbhwk,wk->bnhw", rows[..., first[:, None] + four], weights)
        return field

    def _erased(self, x: Array, keys: NDArray[np.uint64]) -> Array:
        inside = []
        for axis, number in ((2, ERASED_ROW), (3, ERASED_COLUMN)):
            length = x.shape[axis]
            first = np.floor(np.float32(length) * draws(keys, number)) - self.erase // 2
            beyond = np.arange(length) - first[:, None]
            inside.append((beyond >= 0) & (beyond < self.erase))
        square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        return np.where(square, x.dtype.type(self.fill), x)


def image_keys(seed: Seed, images: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return what the draws of images depend on: the seed with the epoch, and their places."""
    step = np.uint64(0xD1342543DE82EF95)  # odd; the draws of a key go on by another one
    return np.uint64(random_key(seed, _KEY)) + images.astype(np.uint64) * step


def draws(keys: NDArray[np.uint64], number: int) -> NDArray[np.float32]:
    """Return a number in [0, 1) for every key, of 24 bits: SplitMix64, as in ``dropout.py``."""
    z = split_mix(keys + np.uint64((number + 1) * int(GOLDEN) % 2**64))
    return (z >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def _either_way(keys: NDArray[np.uint64], number: int) -> NDArray[np.float32]:
    return 2 * draws(keys, number) - np.float32(1)


def mixture(alpha: float, seed: Seed) -> float:
    """Return the share of its own that every image of a batch keeps: a draw from Beta(a, a).

    Source: Zhang et al., mixup (2018), section 2, with one share for a batch as in their program.
    """
    rng = np.random.default_rng(random_key(seed, _MIXTURE_KEY))
    return float(rng.beta(alpha, alpha))


def partners(images: int) -> NDArray[np.int64]:
    """Return which image of a batch is mixed into each: the next of its group, in a circle."""
    places = np.arange(images)
    first = places // GROUP * GROUP
    return first + (places - first + 1) % np.minimum(GROUP, images - first)
