"""What training measures and tells: dead units, Normalize, raw pixels, and its progress."""

import io
import re
import time
import warnings

import numpy as np
import pytest
from rich.console import Console

from fullback import SGD, Network, fit
from fullback.errors import DeadUnitWarning
from fullback.training.dead import dead_units
from support.networks import GOOD, net_and_data, train


class TestDeadUnits:
    def dead_net(self, biases):
        net = Network.parse("dense3 relu dense4", (36,))
        net.parameters["dense1.weight"] = np.full((3, 36), -1.0)
        net.parameters["dense1.bias"] = biases
        return net

    def test_a_dead_layer_is_named_once_many_images_were_trained_on(self):
        net = self.dead_net([0, 0, -1])
        before = []
        x, y = (np.repeat(own, 900, axis=0) for own in self.data())  # 18,000 images
        with pytest.warns(DeadUnitWarning) as caught:
            train(net, x, y, callbacks=[lambda epoch: before.append(len(caught))])
        assert before == [0, 1]
        assert len(caught) == 1
        assert caught[0].filename == train.__code__.co_filename  # where fit is called

    def test_a_dead_layer_is_named(self):
        net = self.dead_net([0, 0, -1])
        with pytest.warns(DeadUnitWarning) as caught:
            train(net, *self.data())
        assert "relu1 is dead: it is 0 everywhere for all of 20 tr" in str(caught[0].message)
        assert list(dead_units(net, self.data()[0])) == ["relu1"]
        assert list(dead_units(net, self.data()[0])["relu1"]) == [0, 1, 2]

    def test_single_units_are_counted_at_the_end(self):
        net = self.dead_net([0, 100, -1])
        with pytest.warns(DeadUnitWarning) as caught:
            fit(net, *self.data(), epochs=2, batch_size=8, optimizer=SGD(1e-6), verbose=False)
        assert [str(warning.message) for warning in caught] == [
            "relu1: 2 of 3 units are dead, 0 for all of 20 training images (0, 2)"
        ]
        assert caught[0].filename == __file__

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_a_few_dead_units_are_only_kept(self, dtype):
        net = Network.parse("dense4 relu dense4", (36,), dtype=dtype)
        net.parameters["dense1.weight"] = np.full((4, 36), -1.0)
        net.parameters["dense1.bias"] = [100, 0, 100, -1]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            history = train(net, *self.data(), optimizer=SGD(1e-6))
        assert {name: list(units) for name, units in history.dead_units.items()} == {
            "relu1": [1, 3]
        }

    @pytest.mark.parametrize("text", ["conv5 relu pool conv4 batchnorm relu flatten dense3 relu"])
    def test_both_engines_find_the_same(self, text):
        rng = np.random.default_rng(1)
        net = Network.parse(f"{text} dense4", (1, 6, 6))
        for name, array in net.parameters.items():
            net.parameters[name] = array - 0.4 * rng.random(array.shape)
        reference = net.copy(dtype="float64")
        found = [dead_units(own, GOOD[1]) for own in (net, reference)]
        assert found[0].keys() == found[1].keys() != set()
        for name, units in found[0].items():
            assert list(units) == list(found[1][name])

    def test_living_layers_get_no_warning(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            train(self.dead_net([100, 100, 100]), *self.data(), optimizer=SGD(1e-6))

    def test_images_are_taken_from_all_over_a_sorted_set(self):
        """One unit answers to the first class, one to the last: neither is dead."""
        net = Network.parse("dense2 relu dense2", (2,))
        net.parameters["dense1.weight"] = np.eye(2)
        x = np.repeat(np.eye(2), 400, axis=0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            train(net, x, np.repeat([0, 1], 400), optimizer=SGD(1e-6), batch_size=100)

    def data(self):
        return GOOD[1].reshape(20, 36), GOOD[2]


class TestNormalize:
    def test_a_frozen_one_is_not_adapted(self):
        net = Network.parse("normalize dense2", (3,))
        net.statistics["normalize1.mean"] = [0.5, 0.25, 0]
        net.freeze("normalize")
        train(net, np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2)
        assert list(net.statistics["normalize1.mean"]) == [0.5, 0.25, 0]
        assert net.statistics["normalize1.images"] == 0

    def test_it_is_adapted_once(self):
        net = Network.parse("normalize dense2", (3,))
        x = np.random.default_rng(0).normal(size=(20, 3))
        train(net, x, np.arange(20) % 2)
        # means of 20 float64 numbers, kept as float32
        np.testing.assert_allclose(net.statistics["normalize1.mean"], x.mean(axis=0), rtol=1e-6)
        train(net, x + 1, np.arange(20) % 2)
        np.testing.assert_allclose(net.statistics["normalize1.mean"], x.mean(axis=0), rtol=1e-6)


class TestProgress:
    def lines(self, epochs, **options):
        net, x, y = net_and_data(text="flatten dense4")
        output = io.StringIO()
        fit(net, x, y, epochs=epochs, batch_size=10, verbose=Console(file=output), **options)
        return output.getvalue().splitlines()

    def test_quiet(self, capfd):
        net, x, y = net_and_data()
        train(net, x, y)
        assert capfd.readouterr() == ("", "")

    def test_standard_error(self, capfd):
        net, x, y = net_and_data()
        fit(net, x, y, epochs=1, batch_size=10)
        out, err = capfd.readouterr()
        assert out == ""
        assert err.startswith("epoch 1/1  loss ")

    def test_one_line_an_epoch(self):
        lines = self.lines(10, validation_data=GOOD[1:])
        assert [line[:12] for line in lines] == [f"epoch {n:>2}/10 " for n in range(1, 11)]
        for line in lines:
            assert line[12:].startswith(" loss ")
            assert "%  validation " in line
            assert line.endswith(" images/s")

    def test_at_most_12_lines(self):
        assert [line[:9] for line in self.lines(30)] == [f"epoch {n:>2}/" for n in range(3, 31, 3)]
        assert len(self.lines(25)) <= 12
        assert self.lines(25)[-1].startswith("epoch 25/25")

    def test_a_bar_on_a_terminal(self):
        net, x, y = net_and_data(text="flatten dense4")
        output = io.StringIO()
        console = Console(file=output, force_terminal=True, width=100)
        pause = [lambda epoch: time.sleep(0.2)]  # the bar is drawn ten times a second
        fit(net, x, y, epochs=1, batch_size=2, verbose=console, callbacks=pause)
        assert re.search(r"epoch 1/1 (\x1b\[\d+m)?━+", output.getvalue())
