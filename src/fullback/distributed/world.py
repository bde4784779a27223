"""Whether this process is one of several that ``mpiexec`` or a cluster's launcher has started."""

from __future__ import annotations

import os
from typing import Any

from fullback.errors import OptionError

_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
_SLURM_SIZES = ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK", "PMIX_RANK")


def size() -> int:
    """Return how many processes were started together, by what their launcher has left to read."""
    # PMIx tells the rank alone. An mpiexec in a job of SLURM inherits the job's numbers of tasks.
    names = [*_SIZES, *(_SLURM_SIZES if "PMIX_RANK" in os.environ else ())]
    found = [os.environ.get(name, "") for name in names]
    return next((int(text) for text in found if text.isdecimal()), 1)


def rank() -> int:
    """Return which of them this is."""
    found = [os.environ.get(name, "") for name in _RANKS]
    return next((int(text) for text in found if text.isdecimal()), 0)


def world() -> Any:
    """Return the communicator of all processes that were started together; None for one alone.

    Raises
    ------
    OptionError
        There are several, and mpi4py is not installed, or is of another MPI than the launcher.
    """
    wanted = size()
    if wanted < 2:
        return None
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise OptionError(
            f"{wanted} processes were started to train together, which needs mpi4py and an MPI "
            f"library; pip install 'fullback[mpi]' ({error})"
        ) from None
    found = MPI.COMM_WORLD
    if found.Get_size() != wanted:
        raise OptionError(
            f"{wanted} processes were started together, but mpi4py knows of {found.Get_size()}: "
            "its MPI library is not that of mpiexec; start them with the mpiexec that is "
            "installed beside mpi4py"
        )
    return found
