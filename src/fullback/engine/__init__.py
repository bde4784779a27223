"""The lane engine, the fast path: sixteen images at a time, one a lane of a SIMD register.

``kernels/`` compute what the pages of ``layers/`` do, in the words of ``simd.py``; ``lowering/``
writes a network as a program of them (``program.py``), which ``machine.py`` runs on threads by the
loop in ``loop.py``. It is compiled once a machine (``compiler.py``, ``words/``, ``build.py``)
and kept (``library.py``, ``cache.py``). ``lanes.py`` is what a network asks. Begin with
``docs/engine.md``, then ``kernels/__init__.py``, which says how to add a kernel.
"""
