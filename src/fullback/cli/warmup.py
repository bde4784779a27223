"""``fullback warmup``."""

from __future__ import annotations

import time

import typer

from fullback.cli import options
from fullback.cli.output import FAILURE, Output, fail, one_line_errors


@one_line_errors
def warmup(as_json: options.JsonOption = False) -> None:
    """Compile the kernels for this machine ahead of time, which is done once, in 10 to 20 s.

    Otherwise the first training or prediction does it. `FULLBACK_CACHE_DIR` is the folder where
    they are kept.
    """
    from fullback.engine.library import cache_path, is_cached, library

    output = Output(as_json=as_json)
    there, path, start = is_cached(), cache_path(), time.perf_counter()
    compiled = library().compiled
    seconds = time.perf_counter() - start
    if not compiled:
        fail("NUMBA_DISABLE_JIT is set: there is nothing to compile")
        raise typer.Exit(FAILURE)
    if not is_cached():
        fail(f"the kernels were compiled, but could not be kept as {path}")
        raise typer.Exit(FAILURE)
    output.event("result", compiled=not there, seconds=seconds, path=str(path))
    done = "were there already" if there else f"compiled in {seconds:.1f} s"
    output.fact("kernels", f"{done}: {path}")
