"""What image arrays mean: the layout that they are read in, and the scale that a network keeps."""

import warnings

import numpy as np
import pytest
from sklearn.datasets import load_digits

import fullback as fb
from fullback.pixels import ImageRecord, channels_first, guessed_range, record_of

PIXELS, LABELS = load_digits(return_X_y=True)
SIXTEENTHS = PIXELS.reshape(-1, 1, 8, 8)  # floats from 0 to 16
BYTES = (SIXTEENTHS * 255 / 16).round().astype(np.uint8)


class TestLayout:
    @pytest.mark.parametrize(
        ("shape", "wanted"),
        [
            ((5, 8, 9), (5, 1, 8, 9)),
            ((60, 16, 16, 3), (60, 3, 16, 16)),
            ((5, 28, 28, 1), (5, 1, 28, 28)),
            ((5, 20, 20, 4), (5, 4, 20, 20)),
            ((5, 8, 5, 4), (5, 8, 5, 4)),
            ((5, 3, 20, 30), (5, 3, 20, 30)),
            ((5, 8, 16, 16), (5, 8, 16, 16)),
            ((5, 64), (5, 64)),
        ],
    )
    def test_plain_cases(self, shape, wanted):
        x = np.arange(np.prod(shape)).reshape(shape)
        read = channels_first(x)
        assert read.shape == wanted
        if len(shape) == 4 and wanted != shape:
            np.testing.assert_array_equal(read[2, 1 % wanted[1]], x[2, :, :, 1 % wanted[1]])

    @pytest.mark.parametrize("shape", [(5, 3, 20, 3), (5, 1, 7, 3), (5, 16, 16, 8)])
    def test_a_guess_is_told(self, shape):
        with pytest.warns(fb.FullbackWarning, match=r"taken for \(N, channels, rows, columns\)"):
            assert channels_first(np.zeros(shape)).shape == shape

    def test_every_door_reads_alike(self, tmp_path):
        x = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3), dtype=np.uint8)
        y = np.arange(60) % 3
        np.savez(tmp_path / "data.npz", x=x, y=y)
        for source in (tmp_path / "data.npz", [(x, y)]):
            assert fb.load_data(source).image_shape == (3, 16, 16)


@pytest.mark.parametrize(
    ("low", "high", "whole", "wanted"),
    [
        (0, 1, False, (0, 1)),
        (0, 0.02, False, (0, 1)),
        (0, 1, True, (0, 1)),
        (-0.03, 1.05, False, (0, 1)),  # resized by splines
        (0, 16, True, (0, 16)),
        (0, 255, True, (0, 255)),
        (3, 200, True, (0, 255)),
        (0, 254.6, False, (0, 255)),
        (-1, 1, False, (-1, 1)),
        (0, 16.5, False, None),
        (0, 4095, True, None),
        (0, 65535, True, None),
        (-2.1, 3.4, False, None),
        (0, 3, True, None),
    ],
)
def test_which_ranges_are_guessed(low, high, whole, wanted):
    assert guessed_range(low, high, whole=whole) == wanted


def trained(x, **options):
    net = fb.Network.parse("normalize conv4 relu pool flatten dense10", (1, 8, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fb.FullbackWarning)
        net.fit(x, LABELS, epochs=4, verbose=False, **options)
    return net


class TestScale:
    @pytest.mark.parametrize("white", [1, 16, 255])
    def test_bytes_are_brought_to_the_scale_of_training(self, white, tmp_path):
        x = SIXTEENTHS if white == 16 else BYTES.astype(np.float32) * np.float32(white / 255)
        net = trained(x)
        assert (net.trained_on.black, net.trained_on.white) == (0, white)
        assert net.score(x, LABELS) > 0.9
        net.save(tmp_path / "model.safetensors")
        for own in (net, fb.load(tmp_path / "model.safetensors"), net.copy()):
            assert own.trained_on == net.trained_on
            np.testing.assert_allclose(own.logits(BYTES), net.logits(x), atol=0.1)
        trace = net.trace(BYTES[:2], LABELS[:2])
        np.testing.assert_allclose(trace.activations["input"], x[:2], atol=0.002 * white)

    def test_bytes_stay_bytes_where_training_saw_bytes(self):
        net = trained(BYTES)
        record = net.trained_on
        assert (record.low, record.high, record.black, record.white) == (0, 1, 0, 1)
        assert record.mean == pytest.approx(BYTES[::2].mean() / 255)
        assert net.check_images(BYTES) is BYTES

    def test_where_the_scale_is_not_known_bytes_are_refused(self):
        x = (SIXTEENTHS - 4.9) / 6
        net = trained(x)
        assert not net.trained_on.takes_pixels
        assert net.score(x, LABELS) > 0.9
        with pytest.raises(fb.InputError, match=r"black and white is not known, .* pixel_range="):
            net.predict(BYTES)
        net = trained(x, pixel_range=(-4.9 / 6, (16 - 4.9) / 6))
        np.testing.assert_allclose(net.logits(BYTES), net.logits(x), atol=0.2)  # 16 levels of 255

    def test_a_guess_is_told(self):
        net = fb.Network.parse("flatten dense10", (1, 8, 8))
        with pytest.warns(fb.FullbackWarning, match=r"floats up to 16, .* whose white is 16"):
            fb.fit(net, SIXTEENTHS, LABELS, epochs=1, verbose=False, optimizer=fb.SGD(1e-6))

    @pytest.mark.parametrize(("first", "then"), [(1, 255), (255, 1), (16, 255)])
    def test_images_of_another_scale_are_told(self, first, then):
        net = trained(BYTES.astype(np.float32) * np.float32(first / 255))
        other = BYTES.astype(np.float32) * np.float32(then / 255)
        with pytest.warns(fb.FullbackWarning, match=f"go from 0 to {then}, .* from 0 to {first}"):
            net.predict(other)

    @pytest.mark.parametrize("first", [1, 255])
    def test_standardised_images_are_told_from_pixels(self, first):
        """Pixels go from 0 to 1 or 255, and standardised ones from below 0 to 4."""
        pixels = BYTES.astype(np.float32) * np.float32(first / 255)
        standardised = (pixels - pixels.mean()) / pixels.std()
        with pytest.warns(fb.FullbackWarning, match="bring them to the same scale"):
            trained(pixels).predict(standardised)
        for other in (standardised, pixels * (2 / first) - 1):
            with pytest.warns(fb.FullbackWarning, match="bring them to the same scale"):
                trained(other).predict(pixels / first)

    def test_dark_or_blank_images_of_the_same_scale_are_not(self):
        net = trained(BYTES.astype(np.float32))
        net.predict(np.zeros((2, 1, 8, 8), np.float32))
        net.predict(np.full((2, 1, 8, 8), 255.0))
        net.predict(BYTES[:5].astype(np.float32) / 4)

    @pytest.mark.filterwarnings("ignore::fullback.DeadUnitWarning")
    def test_the_scale_stays_when_training_goes_on(self):
        net = trained(BYTES.astype(np.float32))
        with pytest.warns(fb.FullbackWarning, match="go from 0 to 1, .* from 0 to 255"):
            net.fit(BYTES[:60] / 255, LABELS[:60], epochs=1, verbose=False, batch_size=20)
        assert net.trained_on.white == 255
        net.fit(BYTES, LABELS, epochs=1, verbose=False)  # brought to 0..255
        assert net.trained_on.white == 255

    def test_a_run_that_diverges_at_once_leaves_nothing_behind(self):
        net = fb.Network.parse("normalize flatten dense10", (1, 8, 8))
        with (
            pytest.warns(fb.FullbackWarning, match="up to 255"),
            pytest.raises(fb.DivergenceError),
        ):
            net.fit(
                BYTES.astype(np.float32),
                LABELS,
                epochs=3,
                verbose=False,
                optimizer=fb.SGD(1e38),
                schedule=fb.schedules.constant,
            )
        assert net.trained_on is None
        assert net.statistics["normalize1.images"] == 0

    def test_the_sample_is_of_the_images_that_take_part(self):
        x = np.zeros((30, 1, 2, 2))
        x[20:] = 200.0
        record = record_of(x, np.arange(20))
        assert (record.low, record.high, record.white) == (0, 0, 1)

    def test_the_border_tells_the_background(self):
        x = np.zeros((4, 1, 5, 5), np.uint8)
        x[:, :, 1:-1, 1:-1] = 255
        assert record_of(x, np.arange(4)).border == 0
        assert record_of(255 - x, np.arange(4)).border == 1

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ((0, 0), "two different finite numbers"),
            ((0, float("nan")), "two different finite"),
            (255, r"must be \(black, white\)"),
            ("ab", "two numbers"),
        ],
    )
    def test_ranges_that_are_none(self, given, words):
        with pytest.raises(fb.OptionError, match=words):
            trained(SIXTEENTHS, pixel_range=given)

    def test_a_range_goes_with_floats(self):
        with pytest.raises(fb.OptionError, match="pixel_range is for float images"):
            trained(BYTES, pixel_range=(0, 16))

    @pytest.mark.parametrize(
        "values",
        [
            (1, 0, 0, 0, 0, 1),
            (0, 1, 0, 0, 1, 1),
            (0, float("inf"), 0, 0, 0, 1),
            ("0", 1, 0, 0, 0, 1),
            (0, 1, 0, 0, None, 1),
        ],
    )
    def test_records_that_are_none(self, values):
        with pytest.raises(fb.OptionError):
            ImageRecord(*values)


@pytest.mark.parametrize(
    ("dtype", "advice"),
    [
        ("uint16", "where white is 65535 or 255"),
        ("int16", "where white is 32767 or 255"),
        ("int64", "where white is 255$"),
        ("bool", r"x.astype\('float32'\)"),
        ("complex64", "if they are numbers"),
    ],
)
def test_advice_on_dtypes_keeps_the_values(dtype, advice):
    net = fb.Network.parse("flatten dense2", (1, 2, 2))
    with pytest.raises(fb.InputError, match=advice) as caught:
        net.predict(np.zeros((1, 1, 2, 2), dtype))
    assert "uint8')" not in str(caught.value)


def test_lists_of_different_lengths():
    with pytest.raises(fb.InputError, match="x cannot be read as an array"):
        fb.Network.parse("flatten dense2", (1, 2, 2)).predict([[1, 2], [3]])


def test_channels_last_images_get_a_hint():
    with pytest.raises(fb.ShapeError, match=r"np.moveaxis\(x, 3, 1\)"):
        fb.Network.parse("flatten dense2", (3, 4, 5)).predict(np.zeros((2, 4, 5, 3)))
