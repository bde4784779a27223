"""How often ``fullback.diagnose`` names the mistake: ``python benchmarks/doctor.py``.

Wrong and right gradients come from the tests' own backward pass, which is written in loops and
shares nothing with the package, and the right ones also from PyTorch where there is one.

Tables: single mistakes (named exactly, and, where not, narrowed to the right layer) for six
architectures, two precisions, and with all arrays or with parameter gradients only; the same by
mistake; pairs of mistakes; false alarms on right gradients; programs as people write them;
conventions; plain pictures, on which rounding decides much; times. Mistakes that change nothing on
the data are not counted. A mistake counts as named where it is the only finding, or among the
explanations that the finding says the data cannot tell apart; these are counted in brackets.
``--only conventions`` makes one of the tables, ``--sound 10000`` judges so many plain pictures.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import doctor_programs

from fullback import Network
from fullback.check.diagnose import Diagnosis, diagnose
from fullback.check.mistakes import MISTAKES
from support import backprops, byhand, plain

TOLERANCE = {"float64": 1e-9, "float32": 1e-3}


TABLES = ("singles", "pairs", "alarms", "programs", "conventions", "sound", "times")


def main() -> None:
    """Make the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=12, help="pairs for each row of the table")
    parser.add_argument("--right", type=int, default=1000, help="right gradients to judge")
    parser.add_argument("--sound", type=int, help="plain pictures to judge, and no other table")
    parser.add_argument("--only", choices=TABLES, nargs="+", help="the tables to make")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.perf_counter()
    makers = {
        "singles": lambda: singles(options.seed),
        "pairs": lambda: pairs(options.pairs, options.seed),
        "alarms": lambda: false_alarms(options.right, options.seed),
        "programs": doctor_programs.programs,
        "conventions": lambda: doctor_programs.conventions(options.seed),
        "sound": lambda: soundness(options.sound or 1000, options.seed),
        "times": lambda: doctor_programs.times(options.seed),
    }
    for name in ["sound"] if options.sound else options.only or TABLES:
        makers[name]()
    print(f"\n{time.perf_counter() - start:.0f} s")


def ask(
    net: Network, x: np.ndarray, y: np.ndarray, made: byhand.Computed, *, everything: bool
) -> Diagnosis:
    """Diagnose what a program computed: all of it, or its parameter gradients."""
    if everything:
        return diagnose(
            net, x, y, made.gradients, made.deltas, made.activations, made.probabilities
        )
    return diagnose(net, x, y, made.gradients)


def differs(
    one: byhand.Computed, other: byhand.Computed, tolerance: float, *, everything: bool
) -> bool:
    """Whether two programs computed different arrays, and more than zeros."""
    kinds = ("gradients", "deltas") if everything else ("gradients",)
    return byhand.shows(one, other, tolerance, kinds)


def explained(found: Diagnosis) -> list[set[str | None]]:
    """Return, for each finding, what it may be."""
    return [{f.mistake, *(a.mistake for a in f.alternatives)} for f in found.findings]


def singles(seed: int) -> None:
    """Throw every switch alone."""
    by_mistake: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    print("single mistakes: named exactly (of these, with an alternative); narrowed to the layer\n")
    for name, dtype, everything in rows():
        named = unsure = layer = count = 0
        for switch, (mistake, kind) in byhand.SWITCHES.items():
            net = byhand.network(name, seed, dtype, dropout=kind == "dropout")
            x, y = byhand.batch(net, seed=seed, dtype=dtype)
            right = byhand.run(net, x, y, dtype=dtype)
            for place in byhand.places(net, switch):
                made = byhand.run(net, x, y, [(switch, place)], dtype)
                if not differs(made, right, TOLERANCE[dtype], everything=everything):
                    continue
                found = ask(net, x, y, made, everything=everything)
                told = explained(found)
                hit = len(told) == 1 and mistake in told[0]
                count += 1
                named += hit
                unsure += hit and len(told[0]) > 1
                layers = [{f.layer, *(a.layer for a in f.alternatives)} for f in found.findings]
                layer += bool(layers) and (place in layers[0] or place == "all")
                by_mistake[mistake][0] += hit
                by_mistake[mistake][1] += 1
        print(
            f"{name:14} {dtype}  {given(everything)}  {named:3} of {count:3} ({unsure:2})   "
            f"{layer:3} of {count:3}",
            flush=True,
        )
    print("\nby mistake\n")
    for mistake in MISTAKES:
        hit, count = by_mistake[mistake]
        print(f"{mistake:26} {hit:4} of {count:4}")


def rows() -> list[tuple[str, str, bool]]:
    """Return the rows of the tables."""
    return [
        (name, dtype, everything)
        for name in byhand.ARCHITECTURES
        for dtype in ("float64", "float32")
        for everything in (True, False)
    ]


def given(everything: bool) -> str:
    """Return the words for what is given."""
    return "all arrays" if everything else "gradients "


def pairs(count: int, seed: int) -> None:
    """Throw two switches at once, in one layer or in two."""
    print("\npairs of mistakes: both named exactly; one of them\n")
    total = [0, 0, 0]
    for name, dtype, everything in rows():
        net = byhand.network(name, seed, dtype)
        x, y = byhand.batch(net, seed=seed, dtype=dtype)
        rng = np.random.default_rng([seed, *name.encode(), everything])
        every = [(s, place) for s in byhand.SWITCHES for place in byhand.places(net, s)]
        possible = list(itertools.combinations(every, 2))
        both = one = tried = 0
        for index in rng.permutation(len(possible)):
            if tried == count:
                break
            pair = possible[index]
            ids = [byhand.SWITCHES[switch][0] for switch, _ in pair]
            if ids[0] == ids[1]:
                continue
            made = byhand.run(net, x, y, pair, dtype)
            alone = [byhand.run(net, x, y, [switch], dtype) for switch in pair]
            if not all(differs(made, a, TOLERANCE[dtype], everything=everything) for a in alone):
                continue  # one hides the other
            told = explained(ask(net, x, y, made, everything=everything))
            hits = [any(mistake in entry for entry in told) for mistake in ids]
            tried += 1
            both += all(hits) and len(told) == 2
            one += any(hits)
        total = [total[0] + both, total[1] + one, total[2] + tried]
        print(
            f"{name:14} {dtype}  {given(everything)}  {both:3} of {tried:3}   {one:3} of {tried:3}",
            flush=True,
        )
    print(f"together: {total[0]} of {total[2]}; one of the two: {total[1]}")


def false_alarms(count: int, seed: int) -> None:
    """Judge right gradients: by hand, by the reference, by PyTorch, in both precisions."""
    makers = {"by hand": byhand.run}
    try:
        import torch  # noqa: F401

        makers["PyTorch"] = backprops.pytorch_program
    except ImportError:
        print("\n(no PyTorch here)")
    print("\nfalse alarms on right gradients\n")
    kinds = [(maker, dtype) for maker in makers for dtype in ("float64", "float32")]
    for kind, (maker, dtype) in enumerate(kinds):
        alarms = 0
        share = count // len(kinds)
        for index in range(share):
            number = seed + index * len(kinds) + kind
            net, x, y = random_case(number, dtype)
            made = makers[maker](net, x, y, dtype=dtype)
            found = ask(net, x, y, made, everything=bool(index % 2))
            wrong = [f for f in found.findings if f.quantity != "output"]  # a dead layer is one
            alarms += bool(wrong)
            if wrong:
                print(f"    case {number}: {[(f.mistake, f.layer, f.quantity) for f in wrong]}")
        print(f"{maker:8} {dtype}  {alarms} of {share}", flush=True)


def soundness(count: int, seed: int) -> None:
    """Judge what right programs compute of plain pictures, as it is and altered."""
    scores: dict[str, Counter[str]] = {"right": Counter(), "altered": Counter()}
    numbers = range(seed * count, (seed + 1) * count)
    with multiprocessing.Pool() as pool:
        for answers in pool.imap_unordered(plain.search, numbers):
            for kind, verdict, complaint in answers:
                scores[kind][verdict] += 1
                if complaint:
                    print(complaint, flush=True)
    print("\nplain pictures: what a right program computes of them, as it is and altered\n")
    for kind, score in scores.items():
        for verdict, number in score.most_common():
            print(f"{kind:8} {verdict:28} {number:6} of {score.total()}")


def random_case(number: int, dtype: str) -> tuple[Network, np.ndarray, np.ndarray]:
    """Draw an architecture, weights, images of different kinds and labels."""
    rng = np.random.default_rng([number, 3])
    name = list(byhand.ARCHITECTURES)[rng.integers(len(byhand.ARCHITECTURES))]
    net = byhand.network(name, number, dtype)
    images = int(rng.integers(1, 9))
    x, y = byhand.batch(net, images, number, dtype)
    kind = rng.integers(4)
    if kind == 1:
        x = rng.normal(size=x.shape).astype(dtype)
    elif kind == 2:
        x = (x > 0.5).astype(dtype)  # ties everywhere
    elif kind == 3:
        x = np.where(x > 0, x, 1).astype(dtype)  # a white background
    return net, x, y


if __name__ == "__main__":
    main()
