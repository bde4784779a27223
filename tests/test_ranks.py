"""Training by several ranks, here threads of one process: the same weights, bit for bit.

``test_mpi.py`` has the same for processes of a real MPI.
"""

from __future__ import annotations

import functools
import time

import numpy as np
import pytest

import fullback as fb
from fullback.distributed.ranks import Ranks
from fullback.engine.library import library
from fullback.engine.ranks import own_images
from fullback.training import lane_stepper
from support.networks import NETWORKS, network, unusual
from support.ranks import together

pytestmark = [
    pytest.mark.filterwarnings("ignore::fullback.FullbackWarning"),
    pytest.mark.skipif(not library().compiled, reason="kernels in plain Python are slow"),
]

EVERYTHING = {
    "augment": fb.Augment(shift=1, rotate=10),
    "mixup": 0.3,
    "average": 0.9,
    "optimizer": fb.Adam(0.01, clip_norm=0.5),
}


def arrays(net):
    return {**net.parameters, **net.statistics}


def trained(comm, make, data, *, options):
    net = make()
    history = fb.fit(net, *data, comm=comm, verbose=False, **options)
    return net, history


def same_on_all(size, make, data, **options):
    """Train on so many ranks; return the arrays and figures, which all have."""
    results = together(size, functools.partial(trained, make=make, data=data, options=options))
    for result in results:
        if isinstance(result, BaseException):
            raise result
    first = arrays(results[0][0])
    for net, history in results[1:]:
        assert list(history) == list(results[0][1])
        for name, array in arrays(net).items():
            np.testing.assert_array_equal(array, first[name], err_msg=name)
    history = results[0][1]
    figures = {
        name: history[name] for name in ("loss", "validation_loss") if history[name][0] is not None
    }
    return {**first, **figures}


def assert_same(size, make, data, **options):
    """Assert that so many ranks end as one process does."""
    net, history = trained(None, make, data, options=options)
    found = same_on_all(size, make, data, **options)
    for name, array in arrays(net).items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    for name in ("loss", "validation_loss"):
        if name in found:
            assert found[name] == history[name]


# Bit for bit --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [2, 3, 4, 7])
def test_every_kind_of_layer(name, size):
    make = functools.partial(network, name)
    data = unusual(make(), 150)  # blocks of 4 + 4 + 2, and the last one is not full
    options = {"validation_data": (data[0][:37], data[1][:37]), "epochs": 2, "batch_size": 61}
    assert_same(size, make, data, **options)


@pytest.mark.parametrize("name", ["pooled", "normed"])
@pytest.mark.parametrize("threads", ["1", "3"])
def test_with_everything_that_draws(name, threads, monkeypatch):
    monkeypatch.setenv("FULLBACK_NUM_THREADS", threads)
    make = functools.partial(network, name)
    x, y = unusual(make(), 150)
    weight = np.random.default_rng(0).uniform(0, 2, 150)
    weight[::7] = 0
    assert_same(3, make, (x, y), **EVERYTHING, sample_weight=weight, epochs=3)


@pytest.mark.parametrize(
    "frozen", [["conv1"], ["batchnorm"], ["conv", "batchnorm"], ["conv", "batchnorm", "normalize"]]
)
def test_frozen_layers(frozen):
    def make():
        net = network("normed")
        net.freeze(*frozen)
        return net

    assert_same(3, make, unusual(make(), 100), epochs=2)


def test_more_chunks_than_one_and_more_blocks_than_chunks():
    make = functools.partial(network, "pooled")
    assert_same(3, make, unusual(make(), 700), epochs=2, batch_size=400)  # 25 blocks, 16 chunks


@pytest.mark.parametrize("images", [1, 15, 17])
def test_more_ranks_than_blocks(images):
    make = functools.partial(network, "normed")
    assert_same(4, make, unusual(make(), images), epochs=3)


@pytest.mark.parametrize("loss", [fb.MeanSquaredError(), fb.BinaryCrossEntropy()], ids=str)
def test_losses(loss):
    make = functools.partial(network, "pooled", loss=loss)
    assert_same(2, make, unusual(make(), 70), epochs=2)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_images_of_other_dtypes(dtype):
    make = functools.partial(network, "pooled")
    x, y = unusual(make(), 70)
    assert_same(2, make, (x.astype(dtype), y), epochs=2)


# Whose images -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "float16"])
@pytest.mark.parametrize("scatter", [False, True])
def test_a_rank_reads_its_own_images_alone(dtype, scatter):
    """What a rank has in place of the other ranks' images changes nothing."""
    net = network("normed")
    net.statistics["normalize1.images"] = 1  # adapted to them all: by rank 0, which reads them
    x, y = unusual(net, 150, dtype=dtype)
    order = np.random.default_rng([0, 1]).permutation(150)
    alone, _ = trained(None, net.copy, (x, y), options={"epochs": 1})

    def work(comm):
        ranks = Ranks(comm)
        own = order[own_images(comm.rank, ranks, 64, 150, 4)]
        mine = np.full_like(x, 7)
        mine[own] = x[own]
        compared = np.linspace(0, 149, 16).astype(int)
        mine[compared] = x[compared]
        data = (mine, y)
        if scatter:
            data = (x, y) if comm.rank == 0 else (None, None)
        return trained(comm, net.copy, data, options={"epochs": 1})[0]

    for found in together(3, work):
        for name, array in arrays(alone).items():
            np.testing.assert_array_equal(
                found.parameters.get(name, found.statistics.get(name)), array
            )


def test_rank_0_alone_has_the_data():
    x, y = unusual(network("normed"), 150, dtype="float64")
    options = {"epochs": 2, "sample_weight": np.linspace(0, 1, 150), **EVERYTHING}
    validation = {"validation_data": (x[:20], y[:20])}
    alone, figures = trained(None, lambda: network("normed"), (x, y), options=options | validation)

    def work(comm):
        first = comm.rank == 0
        data = (x, y) if first else (None, None)
        return trained(
            comm, lambda: network("normed"), data, options=options | (validation if first else {})
        )

    for found, history in together(3, work):
        assert history["validation_loss"] == figures["validation_loss"]
        for name, array in arrays(found).items():
            np.testing.assert_array_equal(array, arrays(alone)[name])


def test_images_on_some_ranks_are_refused():
    x, y = unusual(network("flat"), 20)

    def work(comm):
        data = (None, None) if comm.rank == 1 else (x, y)
        return trained(comm, lambda: network("flat"), data, options={})

    for error in together(3, work):
        assert str(error) == (
            "x and y must be given on all 3 ranks, or on rank 0 alone; rank 1 had none"
        )


# As without ranks ---------------------------------------------------------------------------------


class Thaw(fb.Callback):
    """Unfreezes a layer after the first epoch, and ends training after the third."""

    def __init__(self, net):
        self.net, self.calls = net, 0

    def __call__(self, epoch):
        self.calls += 1
        self.net.unfreeze("conv1")
        self.net.parameters["dense2.bias"] = self.net.parameters["dense2.bias"] + 1
        return epoch.epoch == 3


def test_callbacks_of_rank_0_are_those_of_all():
    x, y = unusual(network("pooled"), 70)

    def work(comm=None):
        net = network("pooled")
        net.freeze("conv1")
        thaw = Thaw(net)
        history = fb.fit(net, x, y, epochs=9, callbacks=[thaw], comm=comm, verbose=False)
        return net, len(history), thaw.calls

    alone = work()
    found = together(3, work)
    assert [result[1:] for result in found] == [(3, 3), (3, 0), (3, 0)]
    for net, *_ in found:
        for name, array in arrays(net).items():
            np.testing.assert_array_equal(array, arrays(alone[0])[name])
        assert not net.frozen


def test_early_stopping_gives_all_ranks_the_best_epoch():
    x, y = unusual(network("pooled"), 70)

    def work(comm=None):
        net = network("pooled")
        stopping = fb.EarlyStopping(net, patience=2)
        options = {"epochs": 30, "callbacks": [stopping], "validation_data": (x[:9], y[:9])}
        history = fb.fit(net, x, y, comm=comm, verbose=False, **options)
        return net, len(history)

    alone, epochs = work()
    assert epochs < 30
    for net, count in together(3, work):
        assert count == epochs
        for name, array in arrays(net).items():
            np.testing.assert_array_equal(array, arrays(alone)[name])


@pytest.mark.parametrize(("first", "then"), [(3, 2), (2, 1), (1, 4)])
def test_a_run_goes_on_with_another_number_of_ranks(tmp_path, first, then):
    make = functools.partial(network, "normed")
    data = unusual(make(), 100)
    options = {**EVERYTHING, "epochs": 4}
    whole, _ = trained(None, make, data, options=options)
    file = tmp_path / "run.safetensors"
    stops = {"callbacks": [lambda epoch: epoch.epoch == 2]}
    same_on_all(first, make, data, **options, **stops, checkpoint=file)
    found = same_on_all(then, make, data, **options, checkpoint=file)
    for name, array in arrays(whole).items():
        np.testing.assert_array_equal(found[name], array)


def test_fast_sums_differ_by_rounding():
    make = functools.partial(network, "normed and pooled")
    data = unusual(make(), 150)
    options = {"epochs": 1, "optimizer": fb.SGD(0.01)}
    exact, _ = trained(None, make, data, options=options)
    for size in (2, 3, 5):
        found = same_on_all(size, make, data, **options, sums="fast")
        for name, array in arrays(exact).items():
            np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5, err_msg=name)


def test_large_networks_tell_gradients_while_they_go_back(monkeypatch):
    monkeypatch.setattr(lane_stepper, "_LARGE", 1)
    test_fast_sums_differ_by_rounding()


def test_the_reference_trains_in_one_process():
    x, y = unusual(network("flat"), 20)
    work = functools.partial(
        trained, make=lambda: network("flat"), data=(x, y), options={"engine": "reference"}
    )
    for error in together(2, work):
        assert isinstance(error, fb.OptionError | fb.RankError)
        assert "training in several processes needs the lane engine" in str(error)


def test_what_is_no_communicator():
    with pytest.raises(fb.OptionError, match="comm must be an MPI communicator"):
        fb.fit(network("flat"), *unusual(network("flat"), 20), comm=4)


# Errors -------------------------------------------------------------------------------------------


def errors(size, work):
    found = together(size, work)
    assert all(isinstance(error, BaseException) for error in found), found
    return found


def test_ranks_with_other_options_are_told():
    x, y = unusual(network("flat"), 40)

    def work(comm):
        options = {"epochs": 2 + (comm.rank == 1)}
        return trained(comm, lambda: network("flat"), (x, y), options=options)

    for error in errors(3, work):
        assert "rank 1 was given other options than rank 0: " in str(error)


def test_ranks_with_other_images_are_told():
    x, y = unusual(network("flat"), 40)

    def work(comm):
        return trained(comm, lambda: network("flat"), (x + (comm.rank == 2), y), options={})

    for error in errors(3, work):
        assert "rank 2 was given other pixels than rank 0: " in str(error)


def test_fast_sums_are_told_of(capsys):
    x, y = unusual(network("flat"), 40)

    def work(comm):
        fb.fit(network("flat"), x, y, epochs=1, comm=comm, sums="fast")

    together(2, work)
    told = capsys.readouterr().err
    assert told.count("fast sums: the gradients of 2 ranks are rounded otherwise than") == 1


def test_an_error_on_one_rank_is_one_on_all():
    x, y = unusual(network("flat"), 40)

    def work(comm):
        own = x.copy()
        if comm.rank == 1:
            own[20] = np.nan  # in the part of the images that rank 1 looks at
        return trained(comm, lambda: network("flat"), (own, y), options={})

    first, own, last = errors(3, work)
    assert isinstance(own, fb.InputError)
    assert str(first) == str(last) == f"rank 1 failed: {own}"
    assert "image 20 holds NaN" in str(own)
    assert first.rank == 1


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("moment", ["begin", "call", "finish"])
def test_an_error_of_a_callback(kind, moment):
    class Fails(fb.Callback):
        def begin(self, history):
            if moment == "begin":
                raise kind("no " * 3000)

        def __call__(self, epoch):
            if moment == "call":
                raise kind("no")

        def finish(self, history):
            if moment == "finish":
                raise kind("no")

    x, y = unusual(network("flat"), 40)
    options = {"callbacks": [Fails()], "epochs": 2}
    first, *others = errors(
        3, functools.partial(trained, make=lambda: network("flat"), data=(x, y), options=options)
    )
    assert type(first) is kind
    for error in others:
        assert isinstance(error, fb.RankError)
        text = "it was interrupted" if kind is KeyboardInterrupt else "no"
        assert str(error).startswith(f"rank 0 failed: {text}")


def test_an_error_while_a_batch_is_computed(monkeypatch):
    staged = lane_stepper.staged
    x, y = unusual(network("flat"), 200, dtype="float16")

    def fails(images, *more):
        if len(images) != 200 and fails.wait.pop(0) == "fail":
            raise OSError("the disk is gone")
        return staged(images, *more)

    fails.wait = ["", "", "", "", "fail", *[""] * 99]
    monkeypatch.setattr(lane_stepper, "staged", fails)
    found = errors(
        2,
        functools.partial(
            trained, make=lambda: network("flat"), data=(x, y), options={"epochs": 9}
        ),
    )
    kinds = sorted(type(error).__name__ for error in found)
    assert kinds == ["OSError", "RankError"]
    assert any("failed: the disk is gone" in str(error) for error in found)


def test_a_loss_that_is_not_finite_is_one_on_all_ranks():
    make = functools.partial(network, "pooled")
    x, y = unusual(make(), 70)
    options = {"optimizer": fb.SGD(1e30), "epochs": 3}
    with pytest.raises(fb.DivergenceError) as alone:
        trained(None, make, (x, y), options=options)
    for error in errors(3, functools.partial(trained, make=make, data=(x, y), options=options)):
        assert isinstance(error, fb.DivergenceError)
        assert str(error) == str(alone.value)


def test_a_rank_that_is_silent_is_given_up(monkeypatch):
    monkeypatch.setenv("FULLBACK_MPI_TIMEOUT", "1")

    def work(comm):
        ranks = Ranks(comm)
        if comm.rank:
            own, every = np.zeros(1, np.float32), np.zeros(2, np.float32)
            ranks.gather(own, every, [1, 1])
        return "silent"

    silent, error = together(2, work)
    assert silent == "silent"
    assert str(error).startswith("another rank has not answered for 1 s: ")


def test_rank_0_may_take_its_time(monkeypatch):
    """It says now and then that it lives, also while a callback runs."""
    monkeypatch.setenv("FULLBACK_MPI_TIMEOUT", "1")
    options = {"epochs": 2, "callbacks": [lambda epoch: time.sleep(1.5)]}
    same_on_all(3, lambda: network("flat"), unusual(network("flat"), 20), **options)


def test_how_long_is_waited_is_a_number(monkeypatch):
    monkeypatch.setenv("FULLBACK_MPI_TIMEOUT", "soon")
    with pytest.raises(fb.OptionError, match="FULLBACK_MPI_TIMEOUT must be a whole number"):
        Ranks(together(1, lambda comm: comm)[0])
