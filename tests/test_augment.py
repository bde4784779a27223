"""Augmentation: its reference against SciPy and what is known, and its kernels against it."""

import numpy as np
import pytest
import scipy.ndimage

import fullback as fb
from fullback.augment import draws, image_keys, mixture, partners
from fullback.engine.context import MIXTURE, RATES_EACH
from fullback.engine.kernels.optimizer import sgd
from fullback.engine.lowering import lower
from fullback.engine.lowering.plan import Update
from fullback.engine.machine import Machine, staged
from fullback.engine.program import Phase
from fullback.engine.simd import LANES

EVERYTHING = fb.Augment(
    shift=2, rotate=40, scale=0.3, shear=0.2, flip="both", crop=2, erase=3, elastic=20, sigma=3
)
ALL = {
    "shift": fb.Augment(shift=3),
    "rotate": fb.Augment(rotate=180),
    "scale": fb.Augment(scale=0.5),
    "shear": fb.Augment(shear=0.4),
    "horizontal": fb.Augment(flip="horizontal"),
    "vertical": fb.Augment(flip="vertical"),
    "crop": fb.Augment(crop=4),
    "erase": fb.Augment(erase=5),
    "elastic": fb.Augment(elastic=34, sigma=4),
    "fill": fb.Augment(shift=6, erase=4, fill=0.75),
    "everything": EVERYTHING,
}
SHAPES = [(1, 28, 28), (3, 9, 14), (2, 1, 7), (1, 40, 5)]


def images(shape, count=16, seed=0):
    return np.random.default_rng(seed).random((count, *shape), np.float32)


# The kernels against the reference ----------------------------------------------------------------


def of_the_engine(augment, x, keys, own=None):
    """Return what the lane engine makes of images before the first layer."""
    net = fb.Network.parse("flatten dense2", x.shape[1:])
    update = Update(sgd, ("velocity",), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    plan = lower(
        net, "training", training=True, update=update, augment=augment, mixes=own is not None
    )
    phase = next(phase for phase in plan.phases if phase.instructions[0].layers == ("input",))
    read = [own for own in phase.instructions if own.layers == ("input",)]
    machine = Machine(plan, 1)
    machine.set_phases([Phase(phase.scope, read)])
    rates = np.zeros((1, RATES_EACH))
    rates[0, MIXTURE] = 1 if own is None else own
    machine.run(staged(x), batch=len(x), total=len(x), draws=keys, rates=rates)
    view, shape = plan.maps["input"], x.shape[1:]
    cells = np.lib.stride_tricks.as_strided(
        machine.arenas[view.place :],
        (*shape, LANES),
        (view.plane * 4, view.pitch * 4, LANES * 4, 4),
    )
    return np.moveaxis(cells, -1, 0)[: len(x)].copy()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("count", [16, 5])
def test_the_engine_makes_the_reference_s_views(name, shape, count):
    x = images(shape, count)
    for epoch in range(1, 6):
        keys = image_keys((3, epoch), np.arange(count))
        actual = of_the_engine(ALL[name], x, keys)
        desired = ALL[name].view(x.astype(np.float64), keys)
        # A view moves by its source's slope, at most 1 a pixel, times the rounding of where it
        # comes from: some units of the largest coordinate's last place.
        np.testing.assert_allclose(actual, desired, rtol=0, atol=16 * max(shape) * 2.0**-22)


def test_bytes_are_scaled_before_they_are_moved():
    x = np.random.default_rng(0).integers(0, 256, (16, 1, 12, 12), dtype=np.uint8)
    keys = image_keys((0, 1), np.arange(16))
    actual = of_the_engine(EVERYTHING, x, keys)
    np.testing.assert_allclose(actual, EVERYTHING.apply(x, seed=0, epoch=1), atol=1e-4)


@pytest.mark.parametrize("count", [16, 5, 1])
def test_the_engine_mixes_as_the_reference_does(count):
    x = images((2, 6, 5), count)
    others = x[partners(count)]
    actual = of_the_engine(None, x, None, own=0.7)
    np.testing.assert_allclose(actual, 0.7 * x + 0.3 * others, atol=1e-6)


def test_partners():
    assert partners(20).tolist() == [*range(1, 16), 0, 17, 18, 19, 16]
    assert partners(1).tolist() == [0]


def test_the_share_of_a_mixture_is_a_draw_from_beta():
    shares = [mixture(0.4, (0, 1, n)) for n in range(4000)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.02)
    assert np.var(shares) == pytest.approx(1 / (4 * (2 * 0.4 + 1)), rel=0.05)
    assert mixture(0.4, (0, 1, 7)) == shares[7]


# The reference against what is known --------------------------------------------------------------


def test_nothing_is_nothing():
    x = images((1, 8, 8))
    np.testing.assert_array_equal(fb.Augment().apply(x), x)


def test_flips_are_exact_and_half_of_the_views():
    x = images((2, 7, 8), 400)
    for flip, axis in (("horizontal", 3), ("vertical", 2)):
        views = fb.Augment(flip=flip).apply(x)
        flipped = (views == np.flip(x, axis)).all(axis=(1, 2, 3))
        same = (views == x).all(axis=(1, 2, 3))
        assert (flipped ^ same).all()
        assert 150 < flipped.sum() < 250


def test_crops_are_exact_and_equally_frequent():
    x = images((1, 6, 6), 1000)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=0.5)
    views = fb.Augment(crop=1, fill=0.5).apply(x)
    counts = np.zeros((3, 3), int)
    for r in range(3):
        for s in range(3):
            same = views == padded[:, :, r : r + 6, s : s + 6]
            counts[r, s] = same.all(axis=(1, 2, 3)).sum()
    assert counts.sum() == 1000
    assert counts.min() > 80


def test_erasing_fills_one_square_that_may_reach_over_the_edge():
    views = fb.Augment(erase=5, fill=0.25).apply(np.ones((500, 2, 12, 9), np.float32))
    erased = views == 0.25
    np.testing.assert_array_equal(erased[:, 0], erased[:, 1])
    rows, columns = erased[:, 0].any(axis=2).sum(axis=1), erased[:, 0].any(axis=1).sum(axis=1)
    np.testing.assert_array_equal(erased[:, 0].sum(axis=(1, 2)), rows * columns)
    assert set(rows) == set(columns) == {3, 4, 5}


def test_a_view_is_scipy_s_affine_transform():
    x = scipy.ndimage.gaussian_filter(images((1, 20, 25)), 2, axes=(2, 3)).astype(np.float64)
    augment = fb.Augment(shift=3, rotate=60, scale=0.4, shear=0.3, flip="both", fill=0.2)
    views = augment.apply(x, seed=5, epoch=2)
    keys = image_keys((5, 2), np.arange(16))
    for n, (image, view) in enumerate(zip(x, views, strict=True)):
        u = [float(draws(keys[n : n + 1], number)[0]) for number in range(9)]
        down, right, turn, size, shear = (2 * value - 1 for value in u[:5])
        a = np.radians(60 * turn)
        flips = np.diag([-1 if u[7] < 0.5 else 1, -1 if u[8] < 0.5 else 1])
        rotation = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])
        matrix = rotation @ [[1, 0], [0.3 * shear, 1]] @ flips / (1 + 0.4 * size)
        middle = np.array([9.5, 12])
        offset = middle + 3 * np.array([down, right]) - matrix @ middle
        wanted = scipy.ndimage.affine_transform(
            np.pad(image[0], 1, constant_values=0.2),  # interpolated with what is outside
            matrix,
            offset + 1 - matrix @ [1, 1],
            output_shape=(22, 27),
            order=1,
            cval=0.2,
        )[1:-1, 1:-1]
        np.testing.assert_allclose(view[0], wanted, atol=1e-6)


def test_the_elastic_field_is_as_strong_and_as_smooth_as_simard_s():
    alpha, sigma, size, count = 34.0, 4.0, 40, 400
    augment = fb.Augment(elastic=alpha, sigma=sigma)
    own = augment._field(image_keys((0, 1), np.arange(count)), size, size).reshape(-1, size, size)
    rng = np.random.default_rng(0)
    uniform = rng.uniform(-1, 1, (2 * count, size + 40, size + 40))
    theirs = alpha * scipy.ndimage.gaussian_filter(uniform, sigma, axes=(1, 2))[:, 20:-20, 20:-20]
    assert own.std() == pytest.approx(theirs.std(), rel=0.05)
    assert own.std() == pytest.approx(alpha / (2 * sigma * np.sqrt(3 * np.pi)), rel=0.05)

    def correlation(field, lag):
        return (field[:, :, lag:] * field[:, :, : size - lag]).mean() / (field**2).mean()

    for lag in (1, 2, 4, 6, 8, 12):
        assert correlation(own, lag) == pytest.approx(correlation(theirs, lag), abs=0.06)


# Determinism --------------------------------------------------------------------------------------


def test_a_view_depends_on_seed_epoch_and_image_alone():
    x = images((1, 10, 10), 40)
    whole = EVERYTHING.apply(x, seed=4, epoch=3)
    some = np.array([30, 2, 17])
    np.testing.assert_array_equal(
        EVERYTHING.apply(x[some], seed=4, epoch=3, images=some), whole[some]
    )
    assert not np.array_equal(EVERYTHING.apply(x, seed=4, epoch=4), whole)
    assert not np.array_equal(EVERYTHING.apply(x, seed=5, epoch=3), whole)


def test_draws_are_uniform_and_independent():
    keys = image_keys((0, 1), np.arange(20_000))
    table = np.stack([draws(keys, n) for n in range(8)])
    assert table.min() >= 0
    assert table.max() < 1
    np.testing.assert_allclose(table.mean(axis=1), 0.5, atol=0.01)
    np.testing.assert_allclose(table.var(axis=1), 1 / 12, atol=0.002)
    assert abs(np.corrcoef(table) - np.eye(8)).max() < 0.03
    assert abs(np.corrcoef(table[:, 1:], table[:, :-1])[:8, 8:]).max() < 0.03


# Options ------------------------------------------------------------------------------------------


def test_the_text_form_is_read():
    text = "shift=2, rotate=10 flip=horizontal elastic=34 erase=4"
    read = fb.Augment.parse(text)
    assert read == fb.Augment(shift=2, rotate=10, flip="horizontal", elastic=34, erase=4)
    assert repr(read) == "Augment(shift=2, rotate=10, flip='horizontal', erase=4, elastic=34)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shfit=2", "did you mean shift"),
        ("shift", "'shift' has no value; write name=value"),
        ("shift=2 crop=99999", "at most 10,000 pixels"),
        ("rotate", "augmentation: 'rotate' has no value"),
        ("shift=2 shift=3", "'shift=3' is given twice"),
        ("shift=wide", r"shift must be a number in \[0, 1e4\]"),
        ("rotate=181", "rotate must be a number"),
        ("scale=1", "scale must be a number"),
        ("crop=1.5", "crop must be a whole number"),
        ("flip=sideways", "flip must be one of none, horizontal"),
        ("sigma=0.1", "sigma must be a number"),
    ],
)
def test_wrong_options_are_refused(text, message):
    with pytest.raises(fb.OptionError, match=message):
        fb.Augment.parse(text)


def test_the_text_may_have_spaces():
    assert fb.Augment.parse("shift = 2; rotate=3") == fb.Augment(shift=2, rotate=3)


@pytest.mark.parametrize(
    "options", [{"images": 3}, {"images": [0, -1]}, {"images": [0.5, 1.0]}, {"seed": -1}]
)
def test_views_of_images_that_cannot_be(options):
    with pytest.raises(fb.FullbackError):
        fb.Augment(shift=1).apply(images((1, 4, 4), 2), **options)


def test_shapes_that_are_no_images_are_refused():
    with pytest.raises(fb.ShapeError, match=r"expected images \(N, C, H, W\)"):
        fb.Augment(shift=1).apply(np.zeros((4, 9)))
    net = fb.Network.parse("dense3", (9,))
    with pytest.raises(fb.ShapeError, match="augmentation needs images"):
        fb.fit(net, np.zeros((20, 9)), np.zeros(20, int), batch_size=9, augment=fb.Augment(shift=1))
    net = fb.Network.parse("avgpool32 flatten dense3", (1, 1024, 1024))
    with pytest.raises(fb.OptionError, match="sigma"):
        fb.fit(
            net,
            np.zeros((20, 1, 1024, 1024), np.uint8),
            np.zeros(20, int),
            batch_size=2,
            augment=fb.Augment(elastic=3, sigma=0.5),
        )
