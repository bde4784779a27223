"""Every exception and warning that fullback raises on purpose.

::

    FullbackError
    ├── OptionError       (ValueError)    an option that makes no sense, of a layer or of training
    ├── ShapeError        (ValueError)    an array or a layer that does not fit
    ├── InputError        (ValueError)    values that cannot be used: NaN, a label out of range
    ├── DataError         (ValueError)    a data file or folder that is damaged or not what it says
    ├── DownloadError     (OSError)       a data set that could not be fetched
    ├── ModelFileError    (ValueError)    a model file that is damaged, foreign or too new
    ├── NotEnoughMemoryError (MemoryError)  work that takes more memory than there is
    ├── RankError         (RuntimeError)  another process that trains with this one has failed
    └── DivergenceError   (ArithmeticError)  training whose loss is no longer finite

    FullbackWarning       (UserWarning)
    └── DeadUnitWarning   units that answer 0 to every image

Each also derives from the built-in exception that people already catch. The message says what was
given, what was expected and what to do.
"""

from __future__ import annotations


class FullbackError(Exception):
    """The base of every error that fullback raises on purpose."""


class OptionError(FullbackError, ValueError):
    """A layer, network or training option that makes no sense."""


class ShapeError(FullbackError, ValueError):
    """An array, or a layer in a network, whose shape does not fit."""


class InputError(FullbackError, ValueError):
    """Values that cannot be used: NaN, infinity, a label out of range, an empty set."""


class DataError(FullbackError, ValueError):
    """A data file or folder that is missing, damaged or not what it says it is."""


class DownloadError(FullbackError, OSError):
    """A data set that could not be downloaded."""


class ModelFileError(FullbackError, ValueError):
    """A model file that is missing, damaged, foreign or written by a newer version."""


class NotEnoughMemoryError(FullbackError, MemoryError):
    """Work that takes more memory than there is; refused before it is begun, where possible."""


class RankError(FullbackError, RuntimeError):
    """Another process, of those that train together, has failed; ``rank`` is its number, if known.

    What failed there is in the message, and is raised there.
    """

    def __init__(self, message: str, rank: int | None = None) -> None:
        super().__init__(message)
        self.rank = rank


class DivergenceError(FullbackError, ArithmeticError):
    """Training that stopped because the loss was no longer finite.

    ``epochs`` is how many were finished; the network has its weights from the end of the last one.
    """

    def __init__(self, message: str, epochs: int) -> None:
        super().__init__(message)
        self.epochs = epochs


class FullbackWarning(UserWarning):
    """The base of every warning that fullback gives."""


class DeadUnitWarning(FullbackWarning):
    """Units of an activation layer that answer 0 to every image they were shown."""
