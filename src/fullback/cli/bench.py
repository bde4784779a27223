"""``fullback bench``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fullback.cli import options
from fullback.cli.inputs import build
from fullback.cli.interrupt import raise_on_ctrl_c
from fullback.cli.output import FAILURE, Output, fail, one_line_errors
from fullback.errors import OptionError

if TYPE_CHECKING:
    from rich.table import Table

    from fullback.bench.comparison import Comparison, Entry
    from fullback.bench.peak import Peak

_QUICK_ROUNDS, _QUICK_SECONDS = 3, 0.1


NetOption = Annotated[
    list[str] | None,
    typer.Option(
        help="**question**, **small**, **wide**, **cifar-bn**, or layers for images of "
        "1x28x28; may be repeated.",
        metavar="NAME|LAYERS",
        show_default="all four",
    ),
]
BatchOption = Annotated[
    list[int] | None,
    typer.Option(
        min=1, help="Images a step; may be repeated.", metavar="N", show_default="64 and 256"
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Threads of fullback; rivals are measured with 1 and with so many.",
        metavar="N",
        show_default="a thread a core",
    ),
]
RivalOption = Annotated[
    list[str] | None,
    typer.Option(
        help="**pytorch**, **tensorflow** or **jax**; may be repeated.",
        metavar="NAME",
        show_default="what is installed",
    ),
]
RoundsOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Turns of each, of which medians are taken.", metavar="N", show_default="5"
    ),
]
QuickOption = Annotated[
    bool,
    typer.Option("--quick", help="3 short turns, batch 64, and without PyTorch's compiler."),
]


@one_line_errors
def bench(
    net: NetOption = None,
    batch: BatchOption = None,
    threads: ThreadsOption = None,
    rival: RivalOption = None,
    rounds: RoundsOption = None,
    quick: QuickOption = False,
    as_json: options.JsonOption = False,
) -> None:
    """Time training steps beside other frameworks, after checking that all compute the same.

    A step is forward, backward and stochastic gradient descent with momentum, on images in memory.
    Install PyTorch for a comparison: `pip install 'fullback[bench]'`.
    """
    from rich.console import Console

    from fullback.bench.children import Children
    from fullback.bench.comparison import RIVALS, Plan, compare, installed
    from fullback.bench.problem import NETWORKS, Problem
    from fullback.engine.library import library
    from fullback.engine.machine import threads as every_thread

    output = Output(as_json=as_json)
    for name in rival or ():
        if name not in RIVALS:
            raise OptionError(f"--rival must be one of {', '.join(RIVALS)}, got {name!r}")
    chosen = {name: RIVALS[name] for name in rival or RIVALS}
    networks = {
        name: NETWORKS[name]() if name in NETWORKS else build(name, (1, 28, 28), 10, seed=0)
        for name in net or NETWORKS
    }
    batches = batch or ([64] if quick else [64, 256])
    plan = Plan(
        rounds=rounds or (_QUICK_ROUNDS if quick else Plan.rounds),
        seconds=_QUICK_SECONDS if quick else Plan.seconds,
        threads=threads or every_thread(),
        compiler=not quick,
    )
    raise_on_ctrl_c()  # which ends the processes that are measured
    library()  # compiled here, where there is a progress bar
    console = Console(stderr=True, quiet=as_json)
    wrong = 0
    with console.status("measuring the machine") as status, Children() as children:
        peaks = _announce(output, plan.threads)
        there, missing = installed(chosen)
        for kind in missing:
            output.event("missing", framework=kind.framework, install=kind.install)
            output.fact("rival", f"{kind.framework} is not installed: {kind.install}")
        for name, network in networks.items():
            for size in batches:
                problem = Problem.make(name, network, size)
                result = compare(problem, there, plan, children, status.update)
                _show(output, result, peaks)
                wrong += sum(entry.wrong for entry in result.rivals)
    if wrong:
        fail(f"{wrong} rows were refused, because they compute something else")
        raise typer.Exit(FAILURE)


def _announce(output: Output, threads: int) -> dict[int, Peak]:
    """Measure the machine, and say what it is."""
    from fullback.bench.peak import measure_peak, processor

    peaks = {count: measure_peak(count) for count in sorted({1, threads})}
    output.event(
        "machine",
        processor=processor(),
        threads=threads,
        peak_gflops={str(count): peak.gflops for count, peak in peaks.items()},
        peak_source={str(count): peak.source for count, peak in peaks.items()},
    )
    output.fact("processor", processor())
    for count, peak in peaks.items():
        output.fact("peak", f"{_threads(count)}: {peak.gflops:.0f} GFLOP/s, {peak.source}")
    return peaks


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def _show(output: Output, comparison: Comparison, peaks: dict[int, Peak]) -> None:
    """Write what was measured of one problem."""
    problem, best = comparison.problem, comparison.best
    for entry in comparison.entries:
        output.event("row", **_row(comparison, entry, peaks))
    output.event(
        "comparison",
        net=problem.name,
        batch=problem.batch,
        flops_per_image=comparison.flops // problem.batch,
        best=f"{best.framework} {best.variant}" if best else None,
        best_threads=best.threads if best else None,
        ratio=best.ratio if best else None,
    )
    output.show("", _table(comparison, peaks))
    for entry in comparison.rivals:
        if entry.refused:
            kind = "refused" if entry.wrong else "left out"
            output.fact(kind, f"{_name(entry)}: {entry.refused}")
    if best:
        output.fact(
            "ratio",
            (f"{best.ratio:.1f} times", "bold green"),
            f" as fast as the best rival, {_name(best)}",
        )


def _name(entry: Entry) -> str:
    return f"{entry.framework} {entry.variant}, {_threads(entry.threads)}"


def _row(comparison: Comparison, entry: Entry, peaks: dict[int, Peak]) -> dict[str, object]:
    problem, measured = comparison.problem, bool(entry.seconds)
    gflops = comparison.flops / entry.step / 1e9 if measured else None
    return {
        "net": problem.name,
        "batch": problem.batch,
        "framework": entry.framework,
        "variant": entry.variant,
        "threads": entry.threads,
        "images_per_second": problem.batch / entry.step if measured else None,
        "gflops": gflops,
        "share_of_peak": gflops / peaks[entry.threads].gflops if gflops else None,
        "ratio": entry.ratio if entry.ratios else None,
        "rounds": len(entry.seconds),
        "gradient_error": entry.error,
        "refused": entry.refused or None,
    }


def _table(comparison: Comparison, peaks: dict[int, Peak]) -> Table:
    from rich import box
    from rich.table import Table

    problem, best = comparison.problem, comparison.best
    megaflops = comparison.flops / problem.batch / 1e6
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title=f"{problem.name}, batch {problem.batch}, {megaflops:.3g} MFLOP an image",
        title_style="bold",
        title_justify="left",
    )
    table.add_column("framework", no_wrap=True)
    table.add_column("variant", no_wrap=True)
    for column in ("threads", "images/s", "GFLOP/s", "of peak", "ratio"):
        table.add_column(column, justify="right", no_wrap=True)
    for entry in comparison.entries:
        if not entry.seconds:
            continue
        gflops = comparison.flops / entry.step / 1e9
        table.add_row(
            entry.framework,
            entry.variant,
            str(entry.threads),
            f"{problem.batch / entry.step:,.0f}",
            f"{gflops:.3g}" if gflops < 100 else f"{gflops:.0f}",
            f"{gflops / peaks[entry.threads].gflops:.1%}",
            f"{entry.ratio:.1f} x" if entry in comparison.rivals else "",
            style="bold" if entry in (comparison.ours, best) else "",
        )
    return table
