"""Training by several processes, on one machine or many, that talk to each other over MPI.

``ranks.py`` is what one of them has of the others: what all tell each other, and that an error of
one is an error of all. ``world.py`` finds out whether ``mpiexec`` has started this process. What is
told in training is in ``engine/ranks.py``, and how ``fit`` shares out its work in
``training/shared.py``. Begin with ``ranks.py``.
"""
