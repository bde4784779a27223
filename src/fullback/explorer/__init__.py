"""The explorer: a server on this machine, whose page shows, trains and breaks a network.

``launch.py`` begins it and needs no server's packages; ``serve.py`` is the server, on the socket
and the thread of ``fullback.server``; ``security.py`` and ``limits.py`` say who may ask for how
much, ``app.py`` lists what can be asked for, and ``answers.py`` answers, each from a tab's
``session.py``. ``training.py`` trains while others look on; ``lab.py``, ``checks.py`` and
``curves.py`` are the mistake lab. ``web/`` holds the scripts that the report's page does not have.
Another request is a route in ``app.py`` and a
function in ``answers.py``. Begin with ``app.py``.
"""
