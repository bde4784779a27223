"""Tables of ``doctor.py``: programs as people write them, their conventions, and times."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

import fullback as fb
from fullback.errors import FullbackError
from support import backprops, byhand, steps
from support.programs import setting
from wrong_programs import PROGRAMS, STEPS, training_step

Arrays = dict[str, np.ndarray]


# Programs -----------------------------------------------------------------------------------------


def programs() -> None:
    """Judge the programs that hand in arrays, then those that hand in a training step."""
    print(
        "\nprograms as people write them: all mistakes named; the first in its layer; right ones\n"
    )
    for dtype in ("float64", "float32"):
        for everything in (True, False):
            named = layer = count = right = rights = 0
            for program in PROGRAMS.values():
                net, x, y = setting(program)
                found = _of_arrays(program, net, x, y, dtype, everything=everything)
                if not program.MISTAKES:
                    rights += 1
                    right += found.ok
                    continue
                count += 1
                told = {finding.mistake for finding in found.findings}
                named += told == {mistake for _, mistake in program.MISTAKES}
                places = {place for place, _ in program.MISTAKES}
                layer += bool(found.findings) and found.findings[0].layer in places
            what = "all arrays" if everything else "gradients "
            print(f"{dtype}  {what}  {named:3} of {count:3}   {layer:3} of {count:3}   ", end="")
            print(f"{right} of {rights}", flush=True)
    _steps()


def _of_arrays(program, net, x, y, dtype, *, everything):
    result = program.run(dict(net.parameters), x, y)
    kinds = [
        {program.NAMES[kind][own]: np.asarray(a, dtype) for own, a in result[kind].items()}
        for kind in ("gradients", "deltas", "activations")
    ]
    return fb.diagnose(net, x, y, *(kinds if everything else kinds[:1]))


def _steps() -> None:
    print("\ntraining steps: named; in the right layer; seconds; what is not as it should be\n")
    named = layer = count = right = 0
    slowest = 0.0
    for name in STEPS:
        program = training_step(name)
        for wrong in ("", *program.MISTAKES):
            net, x, y = steps.setting(program, flat=wrong == "ties")
            start = time.perf_counter()
            try:
                found = steps.ask(program, net, x, y, wrong)
            except FullbackError as error:
                print(f"    {name} {wrong}: refused: {error}", flush=True)
                count += bool(wrong)
                continue
            took = time.perf_counter() - start
            slowest = max(slowest, took)
            says = [(f.mistake, f.layer, f.quantity) for f in found.findings]
            if not wrong:
                right += found.ok
                good = found.ok
            else:
                hit = steps.named(program, wrong, found)
                place = steps.narrowed(program, net, wrong, found)
                named, layer, count = named + hit, layer + place, count + 1
                good = hit or (place and program.MISTAKES[wrong][1] is None)
            if not good:
                print(f"    {name} {wrong}: {says} {found.not_judged}, {took:.1f} s", flush=True)
    nameable = sum(m[1] is not None for n in STEPS for m in training_step(n).MISTAKES.values())
    print(
        f"named {named} of {count} ({nameable} have a name); in the layer {layer} of {count}; ",
        end="",
    )
    print(f"right {right} of {len(STEPS)}; slowest {slowest:.1f} s", flush=True)


# Conventions --------------------------------------------------------------------------------------


def conventions(seed: int) -> None:
    """Judge right gradients by every convention: a note where one is due, and no finding."""
    print("\nconventions: right, with a note where one is due; told as a mistake\n")
    for convention, (ask, note) in CONVENTIONS.items():
        told = alarms = count = 0
        for name in byhand.ARCHITECTURES:
            for dtype in ("float64", "float32"):
                net = byhand.network(name, seed, dtype)
                x, y = byhand.batch(net, seed=seed, dtype=dtype)
                computed = byhand.run(net, x, y, dtype=dtype)
                try:
                    found = ask(net, x, y, computed)
                except FullbackError as error:
                    print(f"    {convention}, {name}: refused: {error}", flush=True)
                    count += 1
                    continue
                count += 1
                told += found.ok and any(note in line for line in found.notes) >= bool(note)
                alarms += bool(found.findings)
                if not found.ok or (note and not any(note in line for line in found.notes)):
                    says = [(f.mistake, f.layer, f.quantity) for f in found.findings]
                    print(f"    {convention}, {name}, {dtype}: {says} {found.notes}", flush=True)
        print(f"{convention:36} {told:3} of {count:3}   {alarms:3}", flush=True)


def _scaled(arrays: Arrays, factor: float) -> Arrays:
    return {name: a * a.dtype.type(factor) for name, a in arrays.items()}


def _sum(net, x, y, computed):
    return fb.diagnose(
        net, x, y, _scaled(computed.gradients, len(x)), _scaled(computed.deltas, len(x))
    )


def _sum_alone(net, x, y, computed):
    return fb.diagnose(net, x, y, _scaled(computed.gradients, len(x)))


def _sum_asked(net, x, y, computed):
    return fb.diagnose(net, x, y, _scaled(computed.gradients, len(x)), reduction="sum")


def _deltas_of_the_sum(net, x, y, computed):
    return fb.diagnose(net, x, y, computed.gradients, _scaled(computed.deltas, len(x)))


def _one_hot(net, x, y, computed):
    return fb.diagnose(net, x, np.eye(net.output_shape[0])[y], computed.gradients)


def _channels_last(net, x, y, computed):
    gradients = dict(computed.gradients)
    after_maps = next(
        k for k, _ in zip(net.names, net.layers, strict=True) if k.startswith("dense")
    )
    maps = net.shapes[net.names.index("flatten1") - 1]
    for name, a in gradients.items():
        if a.ndim == 4:
            gradients[name] = a.transpose(2, 3, 1, 0)
        elif a.ndim == 2 and name.startswith(f"{after_maps}."):
            gradients[name] = a.reshape(-1, *maps).transpose(2, 3, 1, 0).reshape(-1, len(a))
        elif a.ndim == 2:
            gradients[name] = a.T
    deltas = {k: d.transpose(0, 2, 3, 1) if d.ndim == 4 else d for k, d in computed.deltas.items()}
    return fb.diagnose(net, x.transpose(0, 2, 3, 1), y, gradients, deltas)


def _transposed(net, x, y, computed):
    turned = {k: g.T if g.ndim == 2 else g for k, g in computed.gradients.items()}
    return fb.diagnose(net, x, y, turned)


def _step(net, x, y, computed):
    weights = {k: np.asarray(p, x.dtype) for k, p in net.parameters.items()}
    rate = x.dtype.type(0.1)
    after = {k: w - rate * computed.gradients[k] for k, w in weights.items()}
    return fb.diagnose(net, x, y, weights=weights, after=after, lr=0.1)


def _step_sum(net, x, y, computed):
    after = {
        k: p - p.dtype.type(0.1 * len(x)) * computed.gradients[k] for k, p in net.parameters.items()
    }
    return fb.diagnose(net, x, y, weights=dict(net.parameters), after=after, lr=0.1)


def _l2(net, x, y, computed):
    gradients = {
        k: g + g.dtype.type(0.01) * net.parameters[k] * k.endswith("weight")
        for k, g in computed.gradients.items()
    }
    return fb.diagnose(net, x, y, gradients, l2=0.01)


def _true(net, x, y, computed):
    def turned(arrays: Arrays) -> Arrays:
        return {k: a[:, :, ::-1, ::-1] if a.ndim == 4 else a for k, a in arrays.items()}

    return fb.diagnose(
        net, x, y, turned(computed.gradients), weights=turned(dict(net.parameters)),
        convolution="true",
    )  # fmt: skip


def _one_image(net, x, y, _):
    def step(weights, image, label):
        alone = net.copy()
        for name, w in weights.items():
            alone.parameters[name] = w
        found = byhand.run(alone, image[None], np.array([label]), dtype=str(x.dtype))
        for name, w in weights.items():
            w -= w.dtype.type(0.1) * found.gradients[name]

    weights = {k: p.copy() for k, p in net.parameters.items()}
    return fb.diagnose_program(step, weights, x, y, net=net, lr=0.1)


def _no_bias(net, x, y, _):
    kept = {k: p for k, p in net.parameters.items() if not k.startswith("conv") or "weight" in k}
    bare = net.copy()
    for name in net.parameters:
        if name not in kept:
            bare.parameters[name] = np.zeros_like(net.parameters[name])
    found = byhand.run(bare, x, y, dtype=str(x.dtype))
    gradients = {k: found.gradients[k] for k in kept}
    return fb.diagnose(net, x, y, gradients, weights=kept)


CONVENTIONS: dict[str, tuple[Callable[..., fb.Diagnosis], str]] = {
    "sums, gradients and deltas": (_sum, "sum"),
    "sums, gradients": (_sum_alone, "sum"),
    "sums, reduction='sum'": (_sum_asked, ""),
    "deltas of the sum": (_deltas_of_the_sum, "sum"),
    "one-hot labels": (_one_hot, ""),
    "channels last": (_channels_last, ""),
    "dense weights (in, out)": (_transposed, ""),
    "a step and its rate": (_step, ""),
    "a step of a sum and its rate": (_step_sum, "sum"),
    "L2 term, l2=": (_l2, ""),
    "true convolution": (_true, ""),
    "one image at a time": (_one_image, ""),
    "convolutions without bias": (_no_bias, ""),
}


# Time ---------------------------------------------------------------------------------------------

LARGE = "conv32 relu pool conv64 relu pool flatten dense128 relu dense10"


def times(seed: int) -> None:
    """Time ``probe``, and ``diagnose`` on right gradients, named mistakes and an unnamed one."""
    print("\nseconds: probe; right; filters turned; filter not turned; unnamed\n")
    nets = {
        "small": fb.zoo.small(seed=seed, dtype="float64"),
        "wide": fb.zoo.wide(seed=seed, dtype="float64"),
        "wide in float32": fb.zoo.wide(seed=seed),
        "wide on (3, 32, 32)": fb.Network.parse(LARGE, (3, 32, 32), seed=seed, dtype="float64"),
    }
    for name, net in nets.items():
        start = time.perf_counter()
        x, y = fb.probe(net)
        took = [time.perf_counter() - start]
        for what, gradients in _computed(net, x, y, seed):
            start = time.perf_counter()
            found = fb.diagnose(net, x, y, gradients)
            took.append(time.perf_counter() - start)
            if (what == "right") != found.ok:
                print(f"    {name}, {what}: {found}", flush=True)
        print(f"{name:22}" + "".join(f"{seconds:8.1f}" for seconds in took), flush=True)


def _computed(net, x, y, seed) -> Iterator[tuple[str, Arrays]]:
    dtype = str(net.dtype)
    right = backprops.numpy_program(net, x, y, "im2col", dtype).gradients
    yield "right", right
    turned = np.ascontiguousarray(right["conv2.weight"][:, :, ::-1, ::-1])
    yield "filters turned", right | {"conv2.weight": turned}
    yield "filter not turned", backprops.numpy_program(net, x, y, "not turned", dtype).gradients
    rng = np.random.default_rng(seed)
    unnamed = {
        k: (g * rng.uniform(0.5, 1.5, g.shape)).astype(dtype)
        for k, g in right.items()
        if k.startswith("conv")
    }
    yield "unnamed", right | unnamed
