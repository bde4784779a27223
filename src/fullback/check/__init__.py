"""Checks of a backward pass, in four rooms, of which each may use those before it.

``mistakes``   the catalogue: what people do wrong in each kind of layer, as functions with texts
``gradients``  ``check_gradients``: a network's gradients against finite differences of its loss
``diagnose``   ``diagnose``: which mistake of the catalogue a user's gradients have; ``probe``
``layer``      ``check_layer``: a layer that a user wrote as two functions

``arrays``, ``axes`` and ``printing`` serve them all.

A new mistake, or a new kind of layer, goes into ``mistakes``, whose page says how.
"""
