"""The backward pass of one image as one HTML file that needs no server: ``fullback.explain``.

``document.py`` runs the pass and returns everything that is shown as a dict for JSON; ``steps.py``
adds the program, instruction by instruction; ``page.py`` writes document, style and scripts of
``web/`` into one file. The explorer's page shows the same document with the same scripts. A layer
of a new kind needs its formulas in ``web/forward.js`` and ``web/backward.js``. Begin with
``document.document``.
"""
