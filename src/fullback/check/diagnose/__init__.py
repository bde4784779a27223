"""``diagnose``: which mistake a backward pass has, and where; ``probe``: images that show it.

Begin with ``judge``, the public function, and ``case``, the page from what was submitted to the
diagnosis: ``submission`` brings the user's arrays to the network's names (``names``,
``containers``, ``gradients``) and layouts (``layouts``, ``weights``, ``reader``), ``ensemble`` runs
forward with and without rounding, ``search`` looks for the mistakes that explain the arrays
(``hypothesis``, ``chain``, ``compare``), ``findings`` puts them into words, ``report`` shows them.

``diagnose_program`` (``program``) asks it of a training step: ``calls`` tries ways of calling one,
``step`` tells what it did, ``snapshot`` puts back what it changed, ``inferred`` finds the networks
that its weights fit.

A new mistake goes into ``fullback.check.mistakes``; another right way for a whole pass into
``conventions``, another network into ``settings``, and what stands before any backward pass into
``conditions``.
"""

from fullback.check.diagnose.judge import diagnose
from fullback.check.diagnose.probe_images import probe
from fullback.check.diagnose.program import diagnose_program
from fullback.check.diagnose.report import Diagnosis, Finding

__all__ = ["Diagnosis", "Finding", "diagnose", "diagnose_program", "probe"]
