"""What a server of fullback's is made of: its socket, its connections, bodies, log and thread.

``address.py`` listens, ``background.py`` runs the server in a thread, ``connections.py`` and
``bodies.py`` say what clients may take of it, ``log.py`` keeps its log short, ``asgi.py`` has the
types. The explorer and ``fullback serve`` are built on it. Begin with ``background.py``.
"""
