"""The backward pass to look at: what the pages show, and the pages.

Importing a package binds its name in the package above, so ``fullback.explain`` is this module
whatever else it should be. To be the public function as well, it can be called.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fullback.network import Network


class _Explain(ModuleType):
    """The module, with ``fullback.explain.report.explain`` for what a call of it does."""

    def __call__(
        self,
        net: Network,
        x: ArrayLike,
        y: ArrayLike,
        path: str | os.PathLike[str],
        *,
        classes: Sequence[str] | None = None,
        title: str | None = None,
    ) -> None:
        from fullback.explain.report import explain

        explain(net, x, y, path, classes=classes, title=title)


sys.modules[__name__].__class__ = _Explain
