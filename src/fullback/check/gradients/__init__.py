"""``check_gradients``: gradients against finite differences of the loss.

Begin with ``checker``, which says what is compared. ``batch_loss`` is the loss as a function of
what is moved, ``differences`` takes derivatives of such functions and knows how precise they are,
and ``report`` holds the figures. Another way to compare is a method of the class in ``checker``,
with a row of its own in the report.
"""

from fullback.check.gradients.checker import check_gradients
from fullback.check.gradients.report import GradientCheck

__all__ = ["GradientCheck", "check_gradients"]
