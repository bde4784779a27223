"""Training speed: fullback's step beside that of other frameworks, checked before it is timed.

Begin with ``rival.py``: a `Rival` trains the network of a `Problem` (``problem.py``) in a process
of its own (``children.py``). ``comparison.py`` checks each one's gradients and steps, then times
them in turns; ``peak.py`` measures what the processor could do. To add a framework, write a
`Rival`, and put it into ``RIVALS`` in ``comparison.py``.
"""
