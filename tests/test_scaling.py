"""The model of ``benchmarks/scaling.py``: what is told, what terms are found, what is predicted."""

import dataclasses
import io
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from fullback import Network, zoo
from fullback.engine.library import library
from fullback.engine.ranks import blocks_of
from support.mpi import need_mpi

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
if not BENCHMARKS.exists():
    pytest.skip("the tests are not in a checkout", allow_module_level=True)
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(BENCHMARKS)
    import ranks
    import scaling
    import scaling_hosts
    import scaling_measure
    import scaling_model
from scaling_model import (  # noqa: E402 -- found above
    ETHERNET_10,
    ETHERNET_100,
    INFINIBAND,
    MEMORY,
    NODES,
    Compute,
    Link,
    Model,
    Told,
    Wire,
)

TEXTS = ("conv2 relu pool conv3 relu pool flatten dense5 relu dense3", "flatten dense4 tanh dense3",
         "conv2 batchnorm relu pool flatten dropout0.2 dense3")  # fmt: skip
COMPUTE = {
    "": Compute(3e-4, 0.0, 2e-5, 0.0, 0.0),
    "exact": Compute(2.5e-4, 6e-5, 2e-5, 9e-5, 4e-7),
    "fast": Compute(3.1e-4, 1e-6, 2e-5, 6e-5, 3e-7),
}
WIRE = Wire(1.1, 1.05, 6e-5, 4e-6, 8e-10)


def small_net(text):
    return Network.parse(text, (1, 8, 8), seed=0)


def model():
    return Model(zoo.small(), COMPUTE)


# What is told ---------------------------------------------------------------------------------


@pytest.mark.skipif(not library().compiled, reason="kernels in plain Python are slow")
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(("batch", "size"), [(64, 2), (50, 3), (300, 4), (20, 5)])
def test_what_is_told_is_what_a_rank_is_told_when_it_trains(text, batch, size):
    net = small_net(text)
    for sums in ("exact", "fast"):
        _, told = ranks.measured(net, batch, sums, size, steps=1, repeats=1)
        expected = 0
        for each in scaling_model.exchanges(net, batch, size, sums)[0]:
            if each.kind == "gather":
                expected += 4 * (each.floats - each.own)  # the first rank has the largest part
            else:
                expected += round(8 * each.floats * (size - 1) / size)
        assert told == expected


def test_gradients_of_large_networks_are_told_layer_by_layer():
    every, _ = scaling_model.exchanges(zoo.wide(), 64, 2, "fast")
    assert [each.kind for each in every] == ["gather", *["add"] * 4]
    shares = [each.done for each in every]
    assert sum(shares) == pytest.approx(1)
    assert min(shares[2:]) > 0, "something is computed between one layer's gradient and the next"
    parameters = sum(array.size for array in zoo.wide().parameters.values())
    assert sum(each.floats for each in every[1:]) >= parameters


@pytest.mark.parametrize("text", TEXTS)
def test_all_of_the_work_comes_before_the_last_exchange(text):
    for sums in ("exact", "fast"):
        every, chunks = scaling_model.exchanges(small_net(text), 300, 4, sums)
        assert sum(each.done for each in every) == pytest.approx(1)
        assert chunks == 16


@pytest.mark.parametrize("batch", [1, 16, 50, 256, 700])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 16, 20])
def test_the_busiest_rank_has_as_many_blocks_as_the_engine_deals_out(batch, size):
    blocks = -(-batch // 16)
    for sums in ("exact", "fast"):
        group = ranks.Nobody(size, fast=sums == "fast")
        most = max(len(blocks_of(rank, group, blocks, 16)) for rank in range(size))
        assert scaling_model.busiest(batch, size, 1, 16, sums) == most


def test_the_busiest_thread():
    busiest = scaling_model.busiest
    assert busiest(1024, 1, 2, 16) == 32  # 64 blocks in 16 chunks of 4
    assert busiest(1024, 1, 16, 16) == busiest(1024, 16, 1, 16) == busiest(1024, 4, 4, 16) == 4
    assert busiest(1024, 64, 64, 16) == 4, "there are 16 chunks, and no more"
    assert busiest(1024, 64, 1, 16, "fast") == 1
    assert busiest(1024, 2, 16, 16, "fast") == 2
    assert busiest(48, 1, 2, 16) == 2  # of 3 blocks


def test_rounds_messages_and_bytes_by_hand():
    gathered, added = scaling_model.gathered, scaling_model.added
    assert gathered(200, 100, 100, 2) == (1, 1, 400, 800)
    assert gathered(160, 10, 10, 16) == (1, 15, 600, 1200)
    # Those that have something send it to all.
    assert gathered(160, 10, 0, 32) == (1, 31, 1240, 1240 + 640)
    assert gathered(80_000, 40_000, 40_000, 2)[:3] == (3, 1, 160_000), "large ones are asked for"
    assert added(100, 2) == (2, 2, 800, 800)  # up, and down
    assert added(100, 8) == added(100, 5) == (6, 6, 2400, 2400)
    # 1 MB over 4 ranks: halves and quarters, there and back, of which none is small.
    assert added(250_000, 4) == (12, 4, 1_500_000, 1_500_000)
    assert added(32_768, 4)[:3] == (8, 4, 196_608), "64 KiB have a head as well, and are large"
    assert added(16_384, 4)[:3] == (4, 4, 98_304)
    assert added(250_000, 5)[:3] == (18, 6, 3_500_000)


# Terms ----------------------------------------------------------------------------------------


def test_the_terms_of_compute_are_found_in_times_that_were_made_of_them():
    net, times = zoo.small(), {}
    for batch in (64, 256, 1024):
        for sums, every in (("", (1,)), ("exact", (2, 4, 16)), ("fast", (2, 16, 1024))):
            for size in every:
                kind = "fast" if sums == "fast" else "exact"
                most = scaling_model.busiest(batch, size, 1, 16, kind)
                made = COMPUTE[sums]
                times[sums, batch, size] = made.blocks(most) + made.rest(batch, size, 1)
    found, off = scaling_model.fit_compute(times, net)
    assert off < 1e-9
    for sums, made in COMPUTE.items():
        assert dataclasses.astuple(found[sums]) == pytest.approx(dataclasses.astuple(made))


def exchanges_of_sizes(size):
    for n in (16, 4096, 65_536, 524_288):
        yield Told("gather", n * size, n, n, 0.0)
        yield Told("add", n, n, n, 0.0)


def test_the_terms_of_exchanges_are_found_in_times_that_were_made_of_them():
    rng = np.random.default_rng(0)
    links = [Link("a", 0.0, 1e8), Link("b", 1e-3, 2e7), Link("c", 3e-4, 1e9)]
    rows = [
        (told, size, link, crowd, WIRE.seconds(told, size, link, crowd))
        for link in links
        for size, crowd in ((2, 1.0), (4, 2.0))
        for told in exchanges_of_sizes(size)
    ]
    found, off = scaling_model.fit_wire(rows)
    assert off < 1e-6
    assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(WIRE), rel=1e-4)
    rows = [(*row[:4], row[4] * rng.uniform(0.95, 1.05)) for row in rows]
    found, off = scaling_model.fit_wire(rows)
    assert off < 0.05
    assert found.late == pytest.approx(WIRE.late, rel=0.2)
    assert found.full == pytest.approx(WIRE.full, rel=0.2)


def test_the_terms_of_shared_memory():
    made = Wire(1.0, 1.0, 5e-6, 5e-6, 3e-10)
    rows = [(told, 2, MEMORY, 1.0, made.seconds(told, 2, MEMORY)) for told in exchanges_of_sizes(2)]
    found, _ = scaling_model.fit_wire(rows)
    assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(made))


def test_no_term_is_negative():
    terms, _ = scaling_model.fitted([[1, 1], [2, 1], [3, 1]], [1.0, 2.1, 3.3])
    assert terms.min() >= 0


# Predictions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sums", ["exact", "fast"])
def test_slower_networks_take_longer(sums):
    def seconds(latency, bandwidth, size):
        return model().seconds(1024, size, 2, sums, Link("", latency, bandwidth), WIRE)

    for size in (2, 8, 64, 1024):
        by_latency = [seconds(x, 1e9, size) for x in (0.0, 1e-6, 1e-4, 1e-2)]
        by_bandwidth = [seconds(1e-5, x, size) for x in (1e10, 1e9, 1e8, 1e7)]
        for times in (by_latency, by_bandwidth):
            assert times == sorted(times)
            assert times[0] < times[-1]


@pytest.mark.parametrize("sums", ["exact", "fast"])
def test_without_a_cost_of_exchanges_more_nodes_are_not_slower(sums):
    free = dataclasses.replace(COMPUTE[sums], pack=0.0, node=0.0)
    net = Model(zoo.small(), {**COMPUTE, sums: free})
    nothing = Wire(0.0, 0.0, 0.0, 0.0, 0.0)
    times = [net.seconds(4096, size, 2, sums, MEMORY, nothing) for size in NODES]
    assert times == sorted(times, reverse=True)
    if sums == "exact":
        assert times[1] > times[2] == times[-1], "16 chunks are 8 nodes of 2 threads"


def test_one_node_exchanges_nothing():
    net = model()
    assert net.seconds(256, 1, 2, "exact", ETHERNET_10, WIRE) == net.alone(256, 2)
    assert net.alone(256, 2) == pytest.approx(8 * 3e-4 + 1e-5)


def test_gradients_are_told_while_others_are_computed():
    """Until the network is what all wait for, the time is that of the computing."""
    net = Model(zoo.wide(), COMPUTE)
    fast = Wire(1.0, 1.0, 0.0, 0.0, 0.0)
    compute = COMPUTE["fast"]
    work = compute.blocks(scaling_model.busiest(1024, 2, 1, 16, "fast"))
    rest = compute.rest(1024, 2, 1)
    hidden = net.seconds(1024, 2, 1, "fast", Link("", 0.0, 2e9), fast) - rest
    assert work < hidden < 1.01 * work
    shown = net.seconds(1024, 2, 1, "fast", Link("", 0.0, 1e8), fast) - rest
    size = 4 * sum(array.size for array in net.net.parameters.values())
    assert 2 * size / 1e8 < shown < work + 2 * size / 1e8  # there, and back


@pytest.mark.parametrize("sums", ["exact", "fast"])
def test_better_networks_make_no_fewer_nodes_useful(sums):
    for scaling_of in ("strong", "weak"):
        found = [
            getattr(model(), scaling_of)(512, 2, sums, link, WIRE)
            for link in (ETHERNET_10, ETHERNET_100, INFINIBAND)
        ]
        for nodes in NODES:
            shares = [each[nodes] for each in found]
            assert shares == sorted(shares)
            assert 0 < shares[0] <= shares[-1] < 1.3
        useful = [scaling_model.useful(each) for each in found]
        assert useful == sorted(useful)


def test_useful_nodes_are_half_used_and_faster():
    useful = scaling_model.useful
    assert useful({2: 0.4, 4: 0.3}) == 1
    assert useful({2: 0.9, 4: 0.8, 8: 0.45}) == 4
    assert useful({2: 0.9, 4: 0.5, 8: 0.2}) == 4
    assert useful({2: 0.5}) == 1, "no faster than one"
    assert useful({2: 0.9, 4: 0.45, 8: 0.6}) == 8


# The program ----------------------------------------------------------------------------------


def made_times(factor):
    """Times as they are measured, made of terms."""
    times = {}
    for batch in (64, 256, 1024):
        for sums, size in (("", 1), ("exact", 2), ("exact", 16), ("fast", 2), ("fast", 1024)):
            kind = "fast" if sums == "fast" else "exact"
            most = scaling_model.busiest(batch, size, 1, 16, kind)
            compute = COMPUTE[sums].blocks(most) + COMPUTE[sums].rest(batch, size, 1)
            times["compute", "small", sums, batch, size] = factor * compute
    for setting in (None, *scaling.FITTED, *scaling.HELD_OUT):
        link = MEMORY if setting is None else scaling.link(*setting)
        for told in exchanges_of_sizes(2):
            seconds = factor * WIRE.seconds(told, 2, link)
            times["exchange", setting, 2, told.kind, told.own] = seconds
    for setting in (None, scaling.HELD_OUT[0]):
        for sums, seconds in (("", 5e-3), ("exact", 4e-3), ("fast", 3e-3)):
            times["training", setting, "small", sums, 256] = factor * seconds
    return times


def test_what_was_measured_is_kept_and_of_several_files_the_fastest(tmp_path):
    scaling.save(made_times(2.0), tmp_path / "slow.json")
    scaling.save(made_times(1.0), tmp_path / "a.json")
    assert scaling.load([tmp_path / "a.json"]) == made_times(1.0)
    assert scaling.load([tmp_path / "slow.json", tmp_path / "a.json"]) == made_times(1.0)


def test_what_is_shown(tmp_path, monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(scaling, "console", Console(file=out, width=200))
    scaling.save(made_times(1.0), tmp_path / "a.json")
    monkeypatch.setattr("sys.argv", ["scaling.py", "--load", str(tmp_path / "a.json")])
    scaling.main()
    text = " ".join(out.getvalue().split())
    assert "Largest useful number of nodes of 2 threads" in text
    terms = scaling.terms_of(made_times(1.0))
    for sums, compute in terms.compute["small"][0].items():
        assert dataclasses.astuple(compute) == pytest.approx(dataclasses.astuple(COMPUTE[sums]))
    net = Model(zoo.small(), terms.compute["small"][0])
    efficiency = net.strong(1024, 2, "exact", ETHERNET_10, terms.tcp[0])
    assert " ".join(f"{100 * share:.0f}" for share in efficiency.values()) in text
    assert "small exact 256 4.00" in text
    assert "62 %" in text, "of 5 ms alone and 4 ms together"


def hosts_or_skip():
    need_mpi()
    reason = scaling_hosts.missing()
    if reason:
        pytest.skip(f"no hosts here: {reason}")


def left():
    """What there is of the hosts of this process."""
    names = subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
    names += subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    return f"fb{os.getpid()}" in names


@pytest.mark.parametrize("delay", [0.0, 2e-3])
def test_hosts_talk_by_the_network_that_lies_between_them(delay):
    hosts_or_skip()
    bandwidth, floats = 5e6, 50_000
    with scaling_hosts.Hosts(2, delay=delay) as hosts:
        assert left()
        hosts.limit(bandwidth)
        cases = [{"what": what, "floats": n} for what in ("gather", "add") for n in (16, floats)]
        times = scaling_measure.ask(lambda command: hosts.start(command, 100), cases)
    assert not left()
    for case, seconds in zip(cases, times, strict=True):
        crossed = 1 if case["what"] == "gather" else 2
        assert seconds >= crossed * delay
        if case["floats"] == floats:  # less what may go at once
            assert seconds >= crossed * (4 * floats - 20_000) / bandwidth


def test_what_fails_on_a_host_is_told_and_nothing_is_left():
    hosts_or_skip()
    failing = ["sh", "-c", "echo no such network; exit 3"]
    told = pytest.raises(scaling_hosts.CommandError, match="no such network")
    with told, scaling_hosts.Hosts(2) as hosts:
        hosts.start(failing, 60)
    assert not left()
    with pytest.raises(RuntimeError, match="stop"), scaling_hosts.Hosts(2, delay=1e-3):
        raise RuntimeError("stop")
    assert not left()
