"""``diagnose``: which mistake a backward pass has, and where; ``probe``: images that show it.

Begin with ``judge``, a page from what was submitted to the diagnosis: ``submission`` brings the
user's arrays to the network's names and layouts, ``ensemble`` runs forward with and without
rounding, ``search`` looks for the mistakes that explain the arrays, ``findings`` puts them into
words, ``report`` shows them. A new mistake goes into ``fullback.check.mistakes``; a setting that
makes a whole program right, into ``settings``; what stands before any backward pass, into
``conditions``.
"""

from fullback.check.diagnose.judge import diagnose
from fullback.check.diagnose.probe_images import probe
from fullback.check.diagnose.program import diagnose_program
from fullback.check.diagnose.report import Diagnosis, Finding

__all__ = ["Diagnosis", "Finding", "diagnose", "diagnose_program", "probe"]
