"""Plain pictures, edge filters and small whole numbers, on which much is decided by rounding alone.

``case`` draws a network, data and what a right program computes of them; ``alter`` makes some of it
wrong. ``judged`` says what the gradient doctor may not answer.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np

import fullback as fb
from fullback.errors import FullbackError
from support import backprops

EDGES = {
    "sobel": [[1, 0, -1], [2, 0, -2], [1, 0, -1]],
    "sobel down": [[1, 2, 1], [0, 0, 0], [-1, -2, -1]],
    "laplace": [[0, 1, 0], [1, -4, 1], [0, 1, 0]],
    "laplace 8": [[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]],
    "bars": [[1, 0, -1]] * 3,
    "lying": [[1, 1, 1], [0, 0, 0], [-1, -1, -1]],
    "box": [[1, 1, 1]] * 3,
    "ninths": [[1 / 9] * 3] * 3,
    "middle": [[0, 0, 0], [0, 1, 0], [0, 0, 0]],
}


@dataclass
class Case:
    """A network, a batch, and what a right program computed: kind of array, name, array."""

    number: int
    text: str
    net: fb.Network
    x: np.ndarray
    y: np.ndarray
    program: str
    data: str
    weights: str
    convention: str
    arrays: dict[tuple[str, str], np.ndarray]
    every_rule: list[dict[tuple[str, str], np.ndarray]]

    def __str__(self):
        return (
            f"case {self.number}: {self.text} on {self.net.input_shape}, "
            f"{len(self.x)} images, {self.x.dtype}, {self.data}, {self.weights}; {self.program}, "
            f"{self.convention}, {len(self.arrays)} arrays"
        )

    def diagnose(self, arrays):
        """What the doctor says to arrays."""
        given = {kind: {} for kind in ("gradients", "deltas", "activations", "probabilities")}
        for (kind, name), array in arrays.items():
            given[kind][name] = array
        probabilities = given.pop("probabilities").get("")
        return fb.diagnose(self.net, self.x, self.y, **given, probabilities=probabilities)


def full_name(key):
    """An array's name in a diagnosis."""
    kind, name = key
    words = {"gradients": "", "deltas": "delta of ", "activations": "output of "}
    return kind if kind == "probabilities" else words[kind] + name


POOLS = (
    "pool", "pool", "pool", "pool3(stride=2)", "pool2(stride=1)", "pool3(stride=1)",
    "avgpool", "avgpool3(stride=2)",
)  # fmt: skip


def draw_text(rng):
    """The text form of a small network, and its images' shape."""
    channels = int(rng.choice([1, 1, 1, 2, 3]))
    shape = (channels, int(rng.integers(6, 15)), int(rng.integers(6, 15)))
    words, classes = [], int(rng.integers(2, 7))
    for _ in range(int(rng.choice([1, 1, 2, 2, 3]))):
        options = []
        size = rng.choice(["3", "3", "3", "3", "5", "2", "1", "2x3"])
        if size != "3":
            options.append(f"kernel_size={size}")
        stride = rng.choice(["1", "1", "1", "1", "2", "1x2"])
        if stride != "1":
            options.append(f"stride={stride}")
        paddings = ["valid", "valid", "1", "same"] if rng.random() < 0.9 else ["0x1", "2"]
        padding = rng.choice(paddings)
        if padding != "same":
            options.append(f"padding={padding}")
        if rng.random() < 0.15:
            options.append("bias=false")
        filters = int(rng.choice([1, 1, 2, 3, 4]))
        words.append(f"conv{filters}({', '.join(options)})" if options else f"conv{filters}")
        steps = ["relu", rng.choice(POOLS)]
        if rng.random() < 0.15:
            steps[0] = "leakyrelu0.1"
        if rng.random() < 0.3:
            steps.pop(1)
        elif rng.random() < 0.25:
            steps.reverse()
        elif rng.random() < 0.1:
            steps.pop(0)
        words += steps
    words.append("flatten")
    for _ in range(int(rng.choice([0, 0, 1]))):
        words.append(f"dense{rng.integers(2, 9)}")
        words.append("relu")
    words.append(f"dense{classes}" + ("(bias=false)" if rng.random() < 0.1 else ""))
    return " ".join(words), shape


def draw_weights(net, rng):
    """Put plain weights into a network, and say which."""
    kind = rng.choice(["edges", "edges", "edges", "signs", "eighths", "few", "normal"])
    biases = rng.choice(["0", "0", "0", "0.1", "-0.1", "eighths", "normal"])
    for name, array in net.parameters.items():
        if name.endswith("bias"):
            drawn = {
                "0": np.zeros(array.shape),
                "0.1": np.full(array.shape, 0.1),
                "-0.1": np.full(array.shape, -0.1),
                "eighths": rng.integers(-4, 5, array.shape) / 8,
                "normal": rng.normal(0, 0.1, array.shape),
            }[biases]
        elif kind == "edges" and array.ndim == 4:
            edges = np.array(list(EDGES.values()))
            drawn = edges[rng.integers(len(edges), size=array.shape[:2])]
            drawn = np.resize(drawn, array.shape)  # other sizes get what fits
            if rng.random() < 0.3:
                drawn = drawn / rng.choice([2, 3, 8, 10])
        elif kind == "signs":
            drawn = rng.integers(-1, 2, array.shape)
        elif kind == "eighths":
            drawn = rng.integers(-8, 9, array.shape) / 8
        elif kind == "few":
            drawn = rng.choice([-0.3, -0.1, 0.1, 0.2], array.shape)
        else:
            drawn = rng.normal(0, (2 / array[0].size) ** 0.5, array.shape)
        net.parameters[name] = np.asarray(drawn, net.dtype)
    return f"weights {kind}, biases {biases}"


def draw_images(shape, images, rng):
    """Plain pictures, and what they are."""
    kind = rng.choice(list(PICTURES))
    x = np.stack([np.broadcast_to(PICTURES[kind](shape, n, rng), shape) for n in range(images)])
    if rng.random() < 0.1:
        x, kind = np.repeat(x[:1], images, axis=0), f"{kind}, all equal"
    if rng.random() < 0.1:
        x, kind = 1 - x, f"{kind}, inverted"
    return x, kind


def rectangle(shape, n, rng, low=0.0, high=1.0):
    _, rows, columns = shape
    top, left = rng.integers(0, rows - 2), rng.integers(0, columns - 2)
    x = np.full((rows, columns), low)
    x[top : top + rng.integers(2, rows), left : left + rng.integers(2, columns)] = high
    return x


def sliding(shape, n, rng):
    """The same rectangle, a row lower in every image."""
    x = np.full(shape[1:], 0.25)
    x[2 + n : 2 + n + shape[1] // 2, 2 : 2 + shape[2] // 2] = 0.75
    return x


def strokes(shape, n, rng):
    """Some lines with soft edges, in bytes / 255, on a black background."""
    _, rows, columns = shape
    i, j = np.mgrid[:rows, :columns]
    x = np.zeros((rows, columns))
    for _ in range(rng.integers(1, 4)):
        (a, b), (c, d) = rng.random((2, 2)) * [rows, columns]
        t = np.linspace(0, 1, 20)[:, None, None]
        apart = np.hypot(i - (a + (c - a) * t), j - (b + (d - b) * t)).min(axis=0)
        x = np.maximum(x, np.clip(1.6 - apart, 0, 1))
    return np.round(x * 255) / 255


def ramp(shape, n, rng):
    i, j = np.mgrid[: shape[1], : shape[2]]
    down, across = rng.integers(0, 3, 2)
    return (down * i + across * j) / rng.choice([shape[1], 16, 10, 255])


def checkers(shape, n, rng):
    i, j = np.mgrid[: shape[1], : shape[2]]
    size = rng.integers(1, 4)
    return ((i // size + j // size + n) % 2) * rng.choice([1, 0.5, 0.1])


PICTURES = {
    "rectangles on 0": rectangle,
    "rectangles on 1/4": functools.partial(rectangle, low=0.25, high=0.75),
    "rectangles on 0.1": functools.partial(rectangle, low=0.1, high=0.7),
    "a rectangle that slides": sliding,
    "binary": lambda shape, n, rng: rng.integers(0, 2, shape).astype(float),
    "sparse binary": lambda shape, n, rng: (rng.random(shape) < 0.15).astype(float),
    "signs": lambda shape, n, rng: rng.integers(0, 2, shape) * 2.0 - 1,
    "three greys": lambda shape, n, rng: rng.integers(0, 3, shape) / 2,
    "four greys": lambda shape, n, rng: rng.integers(0, 4, shape) / 3,
    "ten greys": lambda shape, n, rng: rng.integers(0, 11, shape) / 10,
    "bytes / 255": lambda shape, n, rng: rng.integers(0, 256, shape) / 255,
    "bytes": lambda shape, n, rng: rng.integers(0, 256, shape).astype(float),
    "strokes": strokes,
    "ramps": ramp,
    "checkers": checkers,
    "constant": lambda shape, n, rng: np.full(shape, rng.choice([0, 0.1, 0.5, 1])),
    "constant channels": lambda shape, n, rng: rng.integers(0, 5, (shape[0], 1, 1)) / 4,
    "random": lambda shape, n, rng: rng.random(shape),
}


def case(number: int) -> Case:
    """Draw a case by its number."""
    rng = np.random.default_rng([number, 14])
    dtype = str(rng.choice(["float64", "float64", "float32"]))
    while True:
        text, shape = draw_text(rng)
        try:
            net = fb.Network.parse(text, shape, dtype=dtype)
        except FullbackError:  # a window does not fit
            continue
        break
    weights = draw_weights(net, rng)
    x, data = draw_images(shape, int(rng.choice([1, 2, 3, 4, 5, 6])), rng)
    x = x.astype(dtype)
    y = rng.integers(0, net.output_shape[0], len(x))
    programs = backprops.programs(net)
    program = str(rng.choice(list(programs)))
    given = str(rng.choice(["gradients", "gradients", "some", "everything"]))
    convention = str(rng.choice(["mean", "mean", "mean", "sum", "deltas of the sum"]))

    def listed(computed):
        arrays = {("gradients", name): a for name, a in computed.gradients.items()}
        arrays |= {("deltas", name): a for name, a in computed.deltas.items()}
        arrays |= {("activations", name): a for name, a in computed.activations.items()}
        arrays["probabilities", ""] = computed.probabilities
        factors = {
            "gradients": len(x) if convention == "sum" else 1,
            "deltas": 1 if convention == "mean" else len(x),
        }
        return {key: a * a.dtype.type(factors.get(key[0], 1)) for key, a in arrays.items()}

    arrays = listed(programs[program](x, y, dtype))
    kept = [
        key
        for key in arrays
        if key[0] == "gradients"
        or given == "everything"
        or (given == "some" and key[0] == "deltas" and rng.random() < 0.4)
    ]
    few = np.random.default_rng([number, 16])
    if few.random() < 0.2:  # one or two arrays, with little that they could be held against
        kept = [kept[i] for i in sorted({*few.integers(len(kept), size=2)})]
    every_rule = [
        listed(backprops.numpy_program(net, x, y, manner, dtype, last=last, slope=slope))
        for manner in ("im2col", "taps")
        for last, slope in (*backprops.RULES, (False, 0.5), (True, 0.5))
    ]
    return Case(
        number, text, net, x, y, program, data, weights, convention,
        {key: arrays[key] for key in kept}, every_rule,
    )  # fmt: skip


ALTERATIONS = {
    "random": lambda a, rng: _random_like(a, rng),
    "negated": lambda a, rng: -a,
    "zeroed": lambda a, rng: np.zeros_like(a),
    "x 2": lambda a, rng: a * 2,
    "x 1/2": lambda a, rng: a / 2,
    "x 1.1": lambda a, rng: a * a.dtype.type(1.1),
    "turned": lambda a, rng: a[..., ::-1, ::-1] if a.ndim == 4 else a,
    "rows for columns": lambda a, rng: a.swapaxes(2, 3) if a.ndim == 4 else a,
    "channels swapped": lambda a, rng: a.swapaxes(0, 1) if a.ndim == 4 else a,
    "channels rolled": lambda a, rng: np.roll(a, 1, 1) if a.ndim == 4 else np.roll(a, 1, 0),
    "permuted": lambda a, rng: rng.permutation(a.ravel()).reshape(a.shape),
    "one number off": lambda a, rng: _one_off(a, rng),
}


def _random_like(a, rng):
    drawn = rng.normal(size=a.shape)
    norm = np.linalg.norm(a.astype(float)) or 1.0
    return (drawn * (norm / np.linalg.norm(drawn))).astype(a.dtype)


def _one_off(a, rng):
    changed = a.copy()
    changed.flat[rng.integers(a.size)] += a.dtype.type(0.3) * (abs(a).max() or 1)
    return changed


def alter(case: Case, rng) -> tuple[str, list, dict] | None:
    """Return what was altered how, the names, and all arrays; None where it changes nothing.

    What is right by another rule, in another layout or by a convention is no alteration.
    """
    how = str(rng.choice(list(ALTERATIONS)))
    keys = [key for key in case.arrays if key[0] != "activations" or key[1] != "input"]
    if not keys:
        return None
    gradients = [key for key in keys if key[0] == "gradients"]
    chosen = {
        "one": [keys[rng.integers(len(keys))]],
        "gradients": gradients,
        "convolutions": [key for key in gradients if key[1].startswith("conv")],
        "all": keys,
    }[str(rng.choice(["one", "one", "one", "gradients", "convolutions", "all"]))]
    n = len(case.x)
    if how.startswith("x "):
        factor = {"x 2": 2, "x 1/2": 0.5, "x 1.1": 1.1}[how]
        if factor in (n, 1 / n):
            return None  # sums for means, here or from here on
    arrays = dict(case.arrays)
    backward = [a for key, a in case.every_rule[0].items() if key[0] in ("gradients", "deltas")]
    largest = max(float(np.abs(a).max(initial=0)) for a in [*backward, *arrays.values()])
    rounding = 100 * float(np.finfo(case.net.dtype).eps) * largest
    changed = []
    for key in chosen:
        if np.abs(arrays[key]).max(initial=0) <= rounding:
            continue  # what a sum that cancels leaves
        new = np.ascontiguousarray(ALTERATIONS[how](arrays[key], rng))
        if new.shape != arrays[key].shape:
            continue
        others = [arrays[key], *(every[key] for every in case.every_rule)]
        if any(alike(new, turned) for a in others for turned in _other_orders(a)):
            continue
        arrays[key] = new
        changed.append(key)
    return (how, changed, arrays) if changed else None


def _other_orders(a):
    """An array with its axes in every other order that a layout could have."""
    for order in itertools.permutations(range(a.ndim)):
        turned = a.transpose(order)
        named = a.ndim == 4 and order in ((0, 1, 3, 2), (1, 0, 2, 3))  # catalogued mistakes
        if turned.shape == a.shape and not named:
            yield turned


def alike(a, b):
    size = max(np.linalg.norm(a.astype(float)), np.linalg.norm(b.astype(float)))
    tolerance = 1e-6 if a.dtype == np.float64 else 2e-2
    return np.linalg.norm(a.astype(float) - b.astype(float)) <= tolerance * size


def never_right(how, changed, arrays):
    """Those of the altered arrays that can be right in no sense.

    Where deltas or activations are altered all alike, one may follow from the one before: half of a
    ReLU's input gives half of its output; and a delta may follow from altered probabilities, and
    the few numbers of a bias gradient, by chance, from a delta whose values changed places.
    """
    changed = [key for key in changed if not _added_up(key, arrays)]
    passed = {kind for kind, _ in changed} & {"deltas", "activations"}
    if any(kind == "probabilities" for kind, _ in changed):
        changed = [key for key in changed if key[0] != "deltas"]
    alone = how in ("random", "permuted") or len(changed) == 1
    return {full_name(key) for key in changed} if alone or not passed else set()


def _added_up(key, arrays):
    """Whether a bias gradient is the sum of its layer's delta, or their mean, for a batch's sum."""
    name, _, what = key[1].partition(".")
    if what != "bias" or ("deltas", name) not in arrays:
        return False
    delta = arrays["deltas", name]
    total = delta.sum(axis=(0, *range(2, delta.ndim)))
    return alike(total, arrays[key]) or alike(total / len(delta), arrays[key])


def judged(case: Case, altered=None) -> tuple[str, object]:
    """Return the doctor's verdict: right, not judged, wrong, or what it must never say."""
    if altered is None:
        found = case.diagnose(case.arrays)
        if found.findings:
            return "FALSE ALARM", found
        return ("right" if found.ok else "not judged"), found
    how, changed, arrays = altered
    found = case.diagnose(arrays)
    if found.ok:
        return "WRONG CALLED RIGHT", found
    if never_right(how, changed, arrays) & set(found.right):
        return "WRONG ARRAY AMONG THE RIGHT", found
    return ("wrong" if found.findings else "not judged"), found


def altered_somehow(drawn: Case):
    """An alteration that makes the case wrong, or None where twenty draws do not."""
    rng = np.random.default_rng([drawn.number, 15])
    return next(filter(None, (alter(drawn, rng) for _ in range(20))), None)


def search(number: int) -> list[tuple[str, str, str]]:
    """Judge a case, right and altered: pairs of what it is and the verdict, with the complaint."""
    drawn, answers = case(number), []
    for altered in (None, altered_somehow(drawn)):
        if altered is None and answers:
            break
        verdict, found = judged(drawn, altered)
        what = "" if altered is None else f"; {altered[0]}: {[full_name(k) for k in altered[1]]}"
        says = [(f.mistake, f.layer, f.quantity) for f in found.findings]
        complaint = f"{verdict}: {drawn}{what}; findings {says}, right {found.right}"
        kind = "right" if altered is None else "altered"
        answers.append((kind, verdict, complaint if verdict.isupper() else ""))
    return answers
