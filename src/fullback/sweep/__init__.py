"""Sweeps: many trainings with other options each, and which of them was best.

``space.py`` has the values that options may have, ``search.py`` which trials are made of them and
in which rounds, ``outcome.py`` what a trial came to and how trials are ranked, ``workers.py`` where
they run, and ``picture.py`` draws them. What a trial is, a run of ``fullback train``, is known to
``cli/`` alone. Begin with ``search.py``; another way to search is a method there.
"""
