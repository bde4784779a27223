"""``check_layer``: a layer that a user wrote, as two functions or as an object.

Begin with ``check``. ``calls`` and ``user_layer`` find out how the functions are called, and
``returned`` what they answer. ``kinds`` says what is known of each kind of layer, and ``cases``
finds the layout and the settings of the user's, and makes inputs on which no mistake hides.
``examination`` looks at the layer on each of them; ``truth`` judges its gradients, by ``reference``
or by finite differences, and ``naming`` says which mistake a wrong one has. Another kind of layer
is an entry in ``kinds``; another name of an argument, a word in ``calls``.
"""

from fullback.check.layer.check import check_layer
from fullback.check.layer.report import LayerCheck

__all__ = ["LayerCheck", "check_layer"]
