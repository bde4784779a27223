"""Pictures of training and of answers, by matplotlib, which the extra ``plot`` brings.

The colour-blind can distinguish the colours (Okabe and Ito 2008), and lines have dashes, too.
Every function returns a figure, and `write` puts it into a file.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fullback.atomic import write_atomically
from fullback.errors import OptionError
from fullback.metrics import most_wrong
from fullback.threshold import answers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fullback.metrics import Curve, Metrics
    from fullback.model import Model
    from fullback.threshold import Threshold
    from fullback.training.history import Epoch
    from fullback.training.rate_finder import RateFinding

_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#777777"
_LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 2)))
_MOST_NUMBERS = 12  # classes of which a confusion matrix shows numbers
_MOST_FILTERS = 64
_MISTAKES = 15


def require_matplotlib() -> None:
    """Raise OptionError where matplotlib is not installed.

    Raises
    ------
    OptionError
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise OptionError("pictures need matplotlib; pip install 'fullback[plot]'") from None


def _figure(width: float, height: float) -> Figure:
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure((width, height), dpi=120, layout="constrained")


def write(figure: Figure, path: Path) -> None:
    """Write a figure to a PNG file, atomically."""
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    write_atomically(path, file.getvalue())


def training(epochs: Sequence[Epoch]) -> Figure:
    """Draw loss and accuracy over the epochs."""
    figure = _figure(9, 3.6)
    from matplotlib.ticker import MaxNLocator

    numbers = [epoch.epoch for epoch in epochs]
    for place, name in enumerate(("loss", "accuracy"), 1):
        axes = figure.add_subplot(1, 2, place)
        for field, label, style, colour in (
            (name, "training", "-", _BLUE),
            (f"validation_{name}", "validation", "--", _ORANGE),
        ):
            values = [getattr(epoch, field) for epoch in epochs]
            if any(value is not None for value in values):
                marker = "o" if len(numbers) < 30 else ""
                axes.plot(numbers, values, style, color=colour, label=label, marker=marker, ms=3)
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        if axes.lines:
            axes.legend(frameon=False)
    return figure


def confusion(found: Metrics, class_names: Sequence[str]) -> Figure:
    """Draw how often which class was taken for which."""
    classes = len(found.confusion)
    size = min(10.0, 3.5 + 0.35 * classes)
    figure = _figure(size, size)
    axes = figure.add_subplot()
    shares = found.confusion / np.maximum(found.confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="cividis", vmin=0, vmax=1)
    if classes <= _MOST_NUMBERS:
        for label, row in enumerate(found.confusion):
            for answer, count in enumerate(row):
                colour = "black" if shares[label, answer] > 0.6 else "white"
                if count:
                    axes.text(
                        answer, label, f"{count}", ha="center", va="center", color=colour, size=8
                    )
    names = [_cut(name) for name in class_names[:classes]]
    axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 2 else 0)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("answer")
    axes.set_ylabel("label")
    axes.set_title(f"accuracy {found.accuracy:.2%}, {found.support.sum():,} images", size=10)
    return figure


def calibration(found: Metrics) -> Figure:
    """Draw how often answers of a probability are right."""
    figure = _figure(4.2, 4)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], ":", color=_GREY, label="as probable as right")
    axes.plot(found.probability, found.right, "o-", color=_BLUE, label="answers")
    for x, y, count in zip(found.probability, found.right, found.images, strict=True):
        axes.annotate(f"{count}", (x, y), (4, -10), textcoords="offset points", size=7)
    axes.set_xlabel("probability of the answer")
    axes.set_ylabel("share that is right")
    axes.set_title(f"calibration error {found.calibration_error:.4f}", size=10)
    axes.legend(frameon=False)
    axes.grid(alpha=0.25)
    return figure


def roc(found: Sequence[Curve], class_names: Sequence[str], measured: Metrics) -> Figure | None:
    """Draw the ROC curve of each class against all others; None where there are none.

    A point is where the answers are.
    """
    if not found:
        return None
    figure, axes = _curve_axes(
        found, class_names, "false positives, share of other classes", "recall (true positives)"
    )
    axes.plot([0, 1], [0, 1], ":", color=_GREY, lw=1)
    for curve, style in _lines(found, class_names, {curve.label: curve.auc for curve in found}):
        axes.plot(curve.false_positives, curve.true_positives, **style)
        if len(found) == 1:
            false, true = _point(measured, curve.label)[:2]
            axes.plot([false], [true], "o", color=_ORANGE, ms=7, label="answers")
    mean = "" if len(found) == 1 else f", mean over {len(found)} classes"
    axes.set_title(f"area under the ROC curve {measured.macro_auc:.4f}{mean}", size=10)
    axes.legend(frameon=False, fontsize=8, loc="lower right", title="area", title_fontsize=8)
    return figure


def precision_recall(
    found: Sequence[Curve], class_names: Sequence[str], measured: Metrics
) -> Figure | None:
    """Draw the precision-recall curve of each class; None where there are none.

    A point is where the answers are.
    """
    if not found:
        return None
    figure, axes = _curve_axes(found, class_names, "recall", "precision")
    areas = {curve.label: curve.average_precision for curve in found}
    for curve, style in _lines(found, class_names, areas):
        axes.plot(curve.recall, curve.precision, drawstyle="steps-post", **style)
        if len(found) == 1:
            axes.axhline(curve.share, color=_GREY, ls=":", lw=1)
            _, recall, precision = _point(measured, curve.label)
            axes.plot([recall], [precision], "o", color=_ORANGE, ms=7, label="answers")
    mean = "" if len(found) == 1 else f", mean over {len(found)} classes"
    axes.set_title(f"average precision {np.mean([*areas.values()]):.4f}{mean}", size=10)
    axes.legend(
        framealpha=1,
        edgecolor="white",
        fontsize=8,
        loc="lower left",
        title="area",
        title_fontsize=8,
    )
    return figure


def _curve_axes(
    found: Sequence[Curve], class_names: Sequence[str], x: str, y: str
) -> tuple[Figure, Axes]:
    figure = _figure(4.8, 4.6)
    axes = figure.add_subplot()
    if len(found) == 1:
        y = f"{y} of {_cut(_name(class_names, found[0].label))}"
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.25)
    return figure, axes


def _lines(
    found: Sequence[Curve], class_names: Sequence[str], areas: dict[int, float]
) -> list[tuple[Curve, dict[str, Any]]]:
    """Return how each curve is drawn: the worst in colours and dashes, others thin and grey."""
    order = sorted(found, key=lambda curve: areas[curve.label])
    named = {curve.label for curve in order[: len(_LINES)]}
    styles: list[tuple[Curve, dict[str, Any]]] = [
        (curve, {"color": _GREY, "lw": 0.6, "alpha": 0.6})
        for curve in found
        if curve.label not in named
    ]
    shown = [curve for curve in found if curve.label in named]
    for curve, colour, dashes in zip(shown, _LINES, _DASHES, strict=False):
        name = _cut(_name(class_names, curve.label))
        label = f"{name} {areas[curve.label]:.4f}"
        styles.append((curve, {"color": colour, "ls": dashes, "lw": 1.6, "label": label}))
    return styles


def _point(measured: Metrics, label: int) -> tuple[float, float, float]:
    """Return the false positives, recall and precision of a class's answers, as shares."""
    confusion = measured.confusion
    others = confusion.sum() - confusion[label].sum()
    false = confusion[:, label].sum() - confusion[label, label]
    return float(false / max(others, 1)), measured.recall[label], measured.precision[label]


def filters(before: Model, after: Model) -> Figure | None:
    """Draw the first convolution's filters before and after training; None without one."""
    name = next((n for n in after.parameters if n.startswith("conv") and n.endswith("weight")), "")
    if not name:
        return None
    pairs = [np.asarray(net.parameters[name])[:_MOST_FILTERS] for net in (before, after)]
    count = len(pairs[0])
    across = min(count, 16)
    lines = -(-count // across)
    figure = _figure(max(4.0, 0.6 * across + 1), 1.5 * lines + 0.8)
    halves: Any = figure.subfigures(2, 1)
    largest = max(float(abs(values).max()) for values in pairs) or 1.0
    for half, values, title in zip(halves, pairs, ("before", "after training"), strict=True):
        half.suptitle(f"{name} {title}", size=9)
        for axes, filter_ in zip(_cells(half, lines, across), values, strict=False):
            axes.imshow(filter_.mean(axis=0), cmap="PuOr", vmin=-largest, vmax=largest)
    return figure


def mistakes(
    images: NDArray[Any],
    labels: NDArray[np.int64],
    probabilities: NDArray[Any],
    class_names: Sequence[str],
    threshold: Threshold | None = None,
) -> Figure | None:
    """Draw the images that a network was most wrong about; None where there are none."""
    given = answers(probabilities, threshold)
    order = most_wrong(labels, probabilities, threshold)
    if not order:
        return None
    across, lines = 5, -(-min(len(order), _MISTAKES) // 5)
    figure = _figure(1.7 * across, 2.1 * lines)
    for axes, n in zip(_cells(figure, lines, across), order, strict=False):
        shown = images[n].transpose(1, 2, 0)
        if shown.dtype != np.uint8:
            low, high = float(shown.min()), float(shown.max())
            shown = (shown - low) / ((high - low) or 1.0)
        axes.imshow(shown if shown.shape[2] == 3 else shown[:, :, 0], cmap="gray")
        label, answer = (_cut(_name(class_names, int(each[n]))) for each in (labels, given))
        axes.set_title(f"{label}, taken for {answer}\n({probabilities[n, given[n]]:.0%})", size=8)
    return figure


def rates(found: RateFinding) -> Figure:
    """Draw the loss over the learning rate, and what is suggested."""
    figure = _figure(6, 3.6)
    axes = figure.add_subplot()
    axes.plot(found.rates, found.losses, color=_BLUE)
    axes.axvline(found.suggestion, color=_ORANGE, ls="--", label=f"{found.suggestion:.2g}")
    axes.set_xscale("log")
    axes.set_ylim(0.9 * float(found.losses.min()), 1.5 * float(found.losses[0]))
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss, smoothed")
    axes.legend(frameon=False, title="suggestion")
    axes.grid(alpha=0.25)
    return figure


def _cells(figure: Any, lines: int, across: int) -> list[Axes]:
    """Return the axes of a grid of pictures, without ticks."""
    cells: list[Axes] = list(figure.subplots(lines, across, squeeze=False).ravel())
    for axes in cells:
        axes.set_axis_off()
    return cells


def _name(class_names: Sequence[str], label: int) -> str:
    return class_names[label] if label < len(class_names) else str(label)


def _cut(name: str) -> str:
    safe = "".join(c if c.isprintable() else "?" for c in name).replace("$", r"\$")
    return safe if len(safe) <= 16 else f"{safe[:15]}..."
