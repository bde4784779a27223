"""``check_layer``: a layer that a user wrote, as two functions or as an object.

Begin with ``check``. ``signatures`` and ``plain_layer`` find out how the functions are called and
``returned`` what they answer; ``kinds`` and ``probes`` make inputs on which no mistake hides;
``examination`` looks at the layer on each of them, ``slopes`` by finite differences, and
``matching`` names what the catalogue of mistakes explains. Another kind of layer is an entry in
``kinds``; another name of an argument, a word in ``words``.
"""

from fullback.check.layer.check import check_layer
from fullback.check.layer.report import LayerCheck

__all__ = ["LayerCheck", "check_layer"]
