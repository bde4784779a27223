"""``fullback serve``: models that answer over HTTP.

``launch.py`` begins it; ``service.py`` is the server, on the socket and the thread of
``fullback.server``; ``app.py`` lists what can be asked for, and hands predictions to
``handler.py``. There ``reading.py`` makes images of a request, and ``blocks.py`` answers those
that arrive together at once. ``openapi.py`` describes all of it, ``metrics.py`` counts. Another
form of images is a function in ``reading.py`` and its place in ``openapi.py``. Begin with
``handler.py``.
"""
