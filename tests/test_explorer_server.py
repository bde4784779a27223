"""The explorer's server: who is let in, what it answers, and what hostile requests get."""

import base64
import contextlib
import dataclasses
import http.client
import io
import json
import logging
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest

import fullback as fb
from fullback.errors import InputError, OptionError, ShapeError
from support.clients import Silent, ended
from support.command import start, time_limit
from support.networks import some_digits, trained

pytest.importorskip("starlette", reason="needs the extra explore")
pytest.importorskip("uvicorn", reason="needs the extra explore")

from fullback.explorer import curves, lab, limits, session, sessions, training, uploads
from fullback.explorer.app import PAGES
from fullback.explorer.launch import explorer
from fullback.explorer.security import AccessPolicy
from fullback.report.document import document
from fullback.server import bodies, connections
from fullback.server import log as server_log
from fullback.server.address import is_loopback

PAGE_LIMIT = 400 * 1024
LINEAR = "conv4 " * 24 + "flatten dense10"  # nothing in it holds numbers back


@pytest.fixture(scope="module")
def data():
    return some_digits()


@pytest.fixture(scope="module")
def net(data):
    return trained(fb.zoo.question(seed=1), data, epochs=6)


@pytest.fixture(scope="module")
def server(net, data):
    with explorer(net, data, name="question", port=0) as server:
        yield server


class Browser:
    """A tab, as far as the server can tell."""

    def __init__(self, server):
        self.server = server
        self.host = f"127.0.0.1:{server.port}"
        self.session = ""

    def raw(self, method, path, body=b"", **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        given = {"Host": self.host, "X-Fullback-Token": self.server.access.token}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in given.items():
            if value is not None:
                connection.putheader(name, value)
        if body and "Content-Length" not in given:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, answer.headers, content

    def ask(self, method, path, body=None, *, status=200, data=None, **headers):
        given = json.dumps(body).encode() if data is None else data
        path = f"/api/sessions/{self.session}{path}" if not path.startswith("/api") else path
        got, _, content = self.raw(method, path, given if method == "POST" else b"", **headers)
        assert got == status, content[:300]
        return json.loads(content)

    def open(self, **link):
        state = self.ask("POST", "/api/sessions", link)
        self.session = state["session"]
        return state

    def get(self, path, **options):
        return self.ask("GET", path, **options)

    def post(self, path, body=None, **options):
        return self.ask("POST", path, body or {}, **options)

    def lines(self, path, body):
        status, _, content = self.raw(
            "POST", f"/api/sessions/{self.session}{path}", json.dumps(body).encode()
        )
        assert status == 200, content
        return [json.loads(line) for line in content.splitlines()]

    def until_done(self):
        deadline = time.monotonic() + 60
        while (report := self.get("/training"))["running"]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return report


@pytest.fixture
def tab(server):
    tab = Browser(server)
    tab.open()
    return tab


def numbers(packed):
    return np.frombuffer(base64.b64decode(packed["data"]), "<f4").reshape(packed["shape"])


def png(pixels, mode="L"):
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels, mode).save(file, "PNG")
    return file.getvalue()


class TestDoor:
    """Host, Origin and token."""

    def test_the_page_itself_needs_no_token(self, tab):
        status, headers, content = tab.raw("GET", "/", X_Fullback_Token=None)
        assert status == 200
        assert b"<title>fullback explore</title>" in content
        assert headers["content-type"].startswith("text/html")

    @pytest.mark.parametrize("token", [None, "", "x", "é".encode().decode("latin-1")])
    def test_everything_else_does(self, tab, token):
        for method, path in (
            ("GET", f"/api/sessions/{tab.session}"),
            ("POST", "/api/sessions"),
            ("GET", f"/api/sessions/{tab.session}/model"),
            ("GET", "/api/nothing"),
        ):
            status, _, content = tab.raw(method, path, X_Fullback_Token=token)
            assert status == 401
            assert "another run of fullback explore" in json.loads(content)["error"]

    @pytest.mark.parametrize(
        "host",
        ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost.evil:{port}",
         "10.0.0.1:{port}", "127.0.0.1:{port}.evil", "", ":{port}"],
    )  # fmt: skip
    def test_other_host_names_are_refused(self, tab, host):
        for path in ("/", "/page/explore.js", f"/api/sessions/{tab.session}"):
            status, _, _ = tab.raw("GET", path, Host=host.format(port=tab.server.port))
            assert status == 421

    @pytest.mark.parametrize("host", ["localhost:{port}", "[::1]:{port}", "127.0.0.1:{port}"])
    def test_names_of_this_machine(self, tab, host):
        host = host.format(port=tab.server.port)
        status, _, _ = tab.raw(
            "GET", f"/api/sessions/{tab.session}", Host=host, Origin=f"http://{host}"
        )
        assert status == 200

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("Origin", "http://evil.example"),
            ("Origin", "null"),
            ("Origin", "https://127.0.0.1:{port}"),
            ("Origin", "http://127.0.0.1:1"),
            ("Sec_Fetch_Site", "cross-site"),
            ("Sec_Fetch_Site", "same-site"),
        ],
    )
    def test_other_pages_are_refused(self, tab, name, value):
        given = {name: value.format(port=tab.server.port)}
        status, _, content = tab.raw("POST", "/api/sessions", **given)
        assert status == 403
        assert b"another web page" in content

    def test_a_link_from_elsewhere_opens_the_page(self, tab):
        status, _, _ = tab.raw("GET", "/", Sec_Fetch_Site="cross-site")
        assert status == 200

    def test_every_answer_has_the_policy(self, tab):
        for path, status in (("/", 200), ("/nothing", 404), ("/api/x", 404), ("/page/x", 404)):
            got, headers, _ = tab.raw("GET", path)
            assert got == status
            policy = headers["content-security-policy"]
            assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "DENY"
            assert headers["referrer-policy"] == "no-referrer"
            assert "server" not in headers

    def test_no_permission_for_other_origins(self, tab):
        status, headers, _ = tab.raw("OPTIONS", "/api/sessions", Origin="http://evil.example")
        assert status == 403
        assert not [name for name in headers if name.lower().startswith("access-control")]

    def test_the_page_is_small(self):
        assert sum(path.stat().st_size for page in PAGES for path in page.iterdir()) < PAGE_LIMIT

    @pytest.mark.parametrize(
        "path",
        ["/page/../explorer/app.py", "/page/%2e%2e%2fexplorer%2fapp.py", "/page//etc/passwd",
         "/page/..%5capp.py", "/page/explore.html%00", "/page/"],
    )  # fmt: skip
    def test_only_the_page_s_files_are_served(self, tab, path):
        status, _, content = tab.raw("GET", path)
        assert status == 404
        assert b"starlette" not in content

    def test_a_notebook_may_frame_its_own(self, net, data):
        with explorer(net, data, port=0, framed=True, height=400) as server:
            tab = Browser(server)
            _, headers, _ = tab.raw("GET", "/")
            assert "frame-ancestors http://127.0.0.1:*" in headers["content-security-policy"]
            assert "x-frame-options" not in headers
            assert f'src="{server.address}"' in server._repr_html_()

    def test_beyond_loopback_addresses_are_names_too(self):
        door = AccessPolicy("t", "0.0.0.0", 80)
        assert door.knows("192.168.1.5:80")
        assert door.knows("[fe80::1]:80")
        assert not door.knows("evil.example:80")
        assert not AccessPolicy("t", "127.0.0.1", 80).knows("192.168.1.5:80")
        assert [*map(is_loopback, ("127.0.0.1", "127.0.0.9", "::1", "localhost", "0.0.0.0"))] == [
            True, True, True, True, False,
        ]  # fmt: skip


class TestServer:
    def test_the_address(self, server):
        assert server.address == f"http://127.0.0.1:{server.port}/#token={server.access.token}"
        assert len(server.access.token) >= 24
        assert str(server) == f"Explorer at {server.address}"

    def test_a_token_of_one_s_own(self, net, data):
        """So links stay good: a second server with the same token takes them."""
        for _ in range(2):
            with explorer(net, data, port=0, token="my-own_token") as server:
                assert server.address.endswith("/#token=my-own_token")
                Browser(server).open()
        for bad in ("short", "with a space", "\u0661" * 9, "x" * 201):
            with pytest.raises(OptionError, match="a token must be 8 to 200"):
                explorer(net, data, port=0, token=bad)

    def test_an_exported_notebook_still_shows_the_pass(self, net, data):
        with explorer(net, data, port=0, framed=True) as server:
            shown = server._repr_html_()
        assert shown.count("data:image/png;base64,") > 20
        assert "run the cell again" in shown
        assert "conv2.weight" in shown

    def test_a_port_that_is_taken(self, server, net, data):
        with pytest.raises(OptionError, match=f"cannot listen at 127.0.0.1, port {server.port}"):
            explorer(net, data, port=server.port)

    def test_without_a_port_any_will_do(self, net, data):
        with explorer(net, data) as one, explorer(net, data) as other:
            assert one.port != other.port
            assert one.access.token != other.access.token

    def test_without_the_extra(self, net, data, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(OptionError, match=r"pip install 'fullback\[explore\]'"):
            explorer(net, data)

    def test_the_command_without_the_extra(self, tmp_path):
        """As a process of its own, in which importing Starlette fails."""
        script = (
            "import sys; sys.modules.update(starlette=None, uvicorn=None); "
            "sys.argv[1:] = ['explore']; from fullback.cli import main; main()"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 2
        assert done.stderr.startswith("error: the explorer needs starlette and uvicorn; pip")
        assert len(done.stderr.splitlines()) == 1

    def test_a_notebook_opens_a_copy(self, net, data):
        before = {name: array.copy() for name, array in net.parameters.items()}
        with net.explore(data) as server:
            tab = Browser(server)
            tab.open()
            tab.post("/step", {"rate": 0.1})
            assert all((net.parameters[name] == array).all() for name, array in before.items())

    @pytest.mark.parametrize(
        ("layers", "shape", "options", "error", "match"),
        [
            ("dense3", (4,), {}, ShapeError, r"images of one or three channels"),
            ("flatten dense3", (2, 4, 4), {}, ShapeError, r"takes \(2, 4, 4\)"),
            ("flatten dense3", (1, 4, 4), {"loss": fb.MeanSquaredError()}, InputError, "numbers"),
            ("flatten dense9000", (1, 28, 28), {}, ShapeError, "7,065,000 parameters"),
        ],
    )
    def test_networks_that_the_page_cannot_show(self, data, layers, shape, options, error, match):
        with pytest.raises(error, match=match):
            explorer(fb.Network.parse(layers, shape, **options), data, port=0)


class TestDocument:
    def test_it_is_the_trace(self, tab, net, data):
        shown = tab.post("/image", {"part": "train", "index": 7})
        trace = net.trace(data.x_train[7:8], data.y_train[7:8])
        assert shown["loss"] == trace.loss
        assert shown["label"] == data.y_train[7]
        for group, arrays in (("activations", trace.activations), ("deltas", trace.deltas)):
            for name, array in arrays.items():
                np.testing.assert_array_equal(numbers(shown[group][name]), array[0])
        for name, array in trace.gradients.items():
            np.testing.assert_array_equal(numbers(shown["gradients"][name]), array)

    def test_the_first_image_is_one_that_is_not_sure(self, tab):
        p = numbers(tab.get("/document")["probabilities"])
        assert 0.3 < p.max() < 0.95

    def test_labels(self, tab):
        shown = tab.post("/image", {"part": "test", "index": 0})
        assert shown["image"] == {"from": "data", "part": "test", "index": 0, "label_given": True}
        changed = tab.post("/label", {"label": (shown["label"] + 1) % 10})
        assert changed["label"] == (shown["label"] + 1) % 10
        assert changed["loss"] > shown["loss"]
        predicted = tab.post("/label", {"label": None})
        assert predicted["label"] == numbers(predicted["probabilities"]).argmax()
        assert not predicted["image"]["label_given"]
        assert "label must be at most 9" in tab.post("/label", {"label": 10}, status=400)["error"]

    def test_a_drawing(self, tab, net):
        pixels = np.zeros((28, 28), np.uint8)
        pixels[4:24, 13:16] = 255
        drawing = base64.b64encode(pixels.tobytes()).decode()
        shown = tab.post("/image", {"pixels": drawing})
        assert shown["image"]["from"] == "drawing"
        np.testing.assert_array_equal(numbers(shown["input"])[0], pixels / np.float32(255))
        np.testing.assert_allclose(
            numbers(shown["probabilities"]), net.predict_proba(pixels[None])[0], rtol=1e-4
        )
        for bad, why in (("$$", "not base64"), (drawing[:-8], "pixels, but the network takes")):
            assert why in tab.post("/image", {"pixels": bad}, status=400)["error"]

    def test_images_to_pick(self, tab, net, data):
        first = tab.get("/images?part=test&count=5")
        assert first["total"] == 200
        assert [image["index"] for image in first["images"]] == [0, 1, 2, 3, 4]
        pixels = base64.b64decode(first["images"][2]["pixels"])
        assert pixels == data.x_test[2].tobytes()
        sevens = tab.get("/images?part=test&label=7")
        assert {image["label"] for image in sevens["images"]} == {7}
        wrong = tab.get("/images?part=test&which=wrong")
        assert wrong["total"] == int((net.predict(data.x_test) != data.y_test).sum())
        assert all(image["label"] != image["predicted"] for image in wrong["images"])
        for query in ("part=nope", "count=0", "count=999", "first=-1", "which=x", "label=x"):
            assert tab.get(f"/images?{query}", status=400)["error"]


class TestScaleAndNames:
    """Images on another scale than 0 to 1, and classes with names."""

    @pytest.fixture
    def open_tab(self):
        with contextlib.ExitStack() as stack:

            def open_tab(net, data, **options):
                server = stack.enter_context(explorer(net, data, port=0, **options))
                tab = Browser(server)
                tab.state = tab.open()
                return tab

            yield open_tab

    def scaled(self, data, black, white):
        """The data set as floats from black to white, and a network that was trained on it."""
        x, test = (black + a.astype(np.float32) / 255 * (white - black)
                   for a in (data.x_train, data.x_test))  # fmt: skip
        net = fb.Network.parse("conv2 relu pool flatten dense10", (1, 28, 28), seed=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", fb.FullbackWarning)
            fb.fit(net, x, data.y_train, epochs=1, verbose=False)
        return net, fb.Dataset("scaled", x, data.y_train, test, data.y_test)

    @pytest.mark.parametrize(("black", "white"), [(0, 255), (-1, 1)])
    def test_pictures_are_brought_to_the_network_s_scale(self, open_tab, data, black, white):
        net, scaled = self.scaled(data, black, white)
        tab = open_tab(net, scaled)
        assert tab.state["drawable"] is None
        pixels = np.zeros((28, 28), np.uint8)
        pixels[4:24, 13:16] = 255
        shown = tab.post("/image", {"pixels": base64.b64encode(pixels.tobytes()).decode()})
        assert shown["range"] == [black, white]
        expected = black + pixels / np.float32(255) * (white - black)
        np.testing.assert_allclose(numbers(shown["input"])[0], expected, atol=1e-4)
        uploaded = tab.post("/upload", data=png(pixels))
        np.testing.assert_array_equal(numbers(uploaded["input"]), numbers(shown["input"]))
        # the files' own images, for the network of floats
        tab = open_tab(net, data)
        shown = tab.post("/image", {"part": "test", "index": 3})
        np.testing.assert_allclose(numbers(shown["input"]), scaled.x_test[3], atol=1e-4)
        own = tab.post(
            "/lab/pass", {"mistake": "sign-flipped", "description": "t - p stands for p - t"}
        )
        assert own["rows"]

    def test_thumbnails_go_from_black_to_white(self, open_tab, data):
        tab = open_tab(*self.scaled(data, 0, 255))
        (first, *_) = tab.get("/images?part=test&count=1")["images"]
        pixels = np.frombuffer(base64.b64decode(first["pixels"]), np.uint8)
        np.testing.assert_array_equal(pixels, data.x_test[0].reshape(-1))

    def test_a_run_leaves_the_scale_with_the_model(self, open_tab, data, tmp_path):
        net, scaled = self.scaled(data, 0, 255)
        tab = open_tab(net, scaled)
        for path, body in (("/reset", {}), ("/training", {"epochs": 1, "rate": 0.001})):
            tab.post(path, body)
        tab.until_done()
        _, _, body = tab.raw("GET", f"/api/sessions/{tab.session}/model")
        (tmp_path / "m.safetensors").write_bytes(body)
        record = fb.load(tmp_path / "m.safetensors").trained_on
        assert (record.black, record.white) == (0, 255)

    def test_where_black_and_white_are_not_known(self, open_tab, data):
        net, scaled = self.scaled(data, -2.7, 3.1)
        assert not net.trained_on.takes_pixels
        tab = open_tab(net, scaled)
        assert "which of them are black and white is not known" in tab.state["drawable"]
        shown = tab.post("/image", {"part": "test", "index": 3})
        assert shown["range"] == pytest.approx([-2.7, 3.1], abs=1e-4)
        drawing = {"pixels": base64.b64encode(bytes(784)).decode()}
        assert "is not known" in tab.post("/image", drawing, status=400)["error"]
        assert "is not known" in tab.post("/upload", data=png(np.zeros((9, 9), np.uint8)),
                                          status=400)["error"]  # fmt: skip
        assert tab.get("/document") == shown
        # uint8 data do not go with it, and floats of another scale do not either
        others = fb.Dataset("far", scaled.x_train * 99, data.y_train, scaled.x_test * 99,
                            data.y_test)  # fmt: skip
        for other in (data, others):
            tab = open_tab(net, other)
            assert not tab.state["data"]["fits"]
            assert tab.get("/document")["image"]["from"] == "drawing"
            assert "does not go with" in tab.post("/image", {"part": "test", "index": 0},
                                                  status=400)["error"]  # fmt: skip

    def test_numbers_do_not_go_with_names(self, open_tab, data, net):
        """Which of the labels 0 to 9 is 'eight', the first of the names, is not known."""
        named = net.copy()
        named.class_names = tuple(
            sorted(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
        )
        tab = open_tab(named, data)
        assert not tab.state["data"]["fits"]
        assert (
            "distinguishes eight, five"
            in tab.post("/image", {"part": "test", "index": 0}, status=400)["error"]
        )

    def test_names_are_the_model_s(self, open_tab, data, net, tmp_path):
        named = net.copy()
        named.class_names = tuple(f"<b>{n}</b>" for n in range(10))
        tab = open_tab(named, data)
        assert tab.state["classes"] == list(named.class_names)
        assert tab.get("/document")["classes"] == list(named.class_names)
        _, _, body = tab.raw("GET", f"/api/sessions/{tab.session}/model")
        (tmp_path / "m.safetensors").write_bytes(body)
        assert fb.load(tmp_path / "m.safetensors").class_names == named.class_names
        other = open_tab(net, data)
        opened = other.post("/model", data=(tmp_path / "m.safetensors").read_bytes())
        assert opened["state"]["classes"] == list(named.class_names)
        assert opened["document"]["classes"] == list(named.class_names)

    def test_labels_follow_the_names(self, open_tab, data):
        """Data with some of the classes, which are numbered in another way."""
        net = fb.Network.parse("flatten dense4", (1, 28, 28))
        net.class_names = ("cat", "cow", "dog", "hen")
        some = [data.y_test < 2, data.y_train < 2]
        two = fb.Dataset("two", data.x_train[some[1]], data.y_train[some[1]],
                         data.x_test[some[0]], data.y_test[some[0]], ("dog", "cat"))  # fmt: skip
        tab = open_tab(net, two)
        label = tab.post("/image", {"part": "test", "index": 0})["label"]
        assert net.class_names[label] == ("dog", "cat")[two.y_test[0]]
        strange = dataclasses.replace(two, class_names=("dog", "fox"))
        tab = open_tab(net, strange)
        assert not tab.state["data"]["fits"]
        assert "cat, cow, dog, hen, but two has dog, fox" in tab.state["data"]["misfit"]

    def test_one_that_it_gets_wrong(self, tab, net, data):
        wrong = np.flatnonzero(net.predict(data.x_test) != data.y_test)
        shown = tab.post("/image", {"wrong": True})
        assert shown["image"]["index"] == wrong[0]
        after = tab.post("/image", {"wrong": True, "after": int(wrong[0])})
        assert after["image"]["index"] == wrong[1]
        again = tab.post("/image", {"wrong": True, "after": int(wrong[-1])})
        assert again["image"]["index"] == wrong[0]

    def test_none_is_wrong(self, open_tab, data):
        net = fb.Network.parse("flatten dense1", (1, 28, 28))
        zeros = [np.zeros_like(data.y_train), np.zeros_like(data.y_test)]
        tab = open_tab(net, fb.Dataset("d", data.x_train, zeros[0], data.x_test, zeros[1]))
        assert (
            "gets all 200 test images of d right"
            in tab.post("/image", {"wrong": True}, status=400)["error"]
        )

    def test_an_upload_is_inverted_afterwards(self, tab):
        ink = np.full((28, 28), 230, np.uint8)
        ink[4:24, 13:16] = 10
        tab.post("/upload", data=png(ink))
        for inverted in (True, True, False):
            shown = tab.post("/image", {"invert": inverted})
            assert shown["image"]["inverted"] is inverted
            wanted = (255 - ink if inverted else ink) / np.float32(255)
            np.testing.assert_array_equal(numbers(shown["input"])[0], wanted)
        tab.post("/image", {"part": "test", "index": 0})
        assert (
            "only an uploaded picture" in tab.post("/image", {"invert": True}, status=400)["error"]
        )


class TestRequests:
    @pytest.mark.parametrize(
        ("path", "body", "match"),
        [
            ("/image", b"[", "not JSON"),
            ("/image", b"[" * 100_000, "not JSON"),
            ("/image", b"[1]", "not a JSON object"),
            ("/image", b"{}", "part must be one of test, train"),
            ("/image", b'{"part": "test", "index": 1e999}', "index must be a whole number"),
            ("/image", b'{"part": "test", "index": -1}', "index must be a whole number"),
            ("/image", b'{"part": "test", "index": 200}', "has 200 images"),
            ("/image", b'{"part": ["test"], "index": 0}', "part must be one of"),
            ("/step", b'{"rate": NaN}', "rate must be a number"),
            ("/step", b'{"rate": "1"}', "rate must be a number"),
            ("/step", b'{"freeze": ["nope"]}', "no layer to freeze"),
            ("/step", b'{"freeze": [1]}', "not a short text"),
            ("/training", b'{"epochs": 0}', "epochs must be"),
            ("/training", b'{"epochs": 1000000}', "epochs must be at most 500"),
            ("/training", b'{"epochs": 1, "batch_size": 5000}', "batch_size must be at most 4096"),
            ("/training", b'{"epochs": 1, "schedule": "x"}', "schedule must be one of"),
            ("/training/resume", b"{}", "no run to resume"),
            ("/reset", b'{"seed": -1}', "seed must be"),
            ("/network", b'{"text": 3}', "text must be a text"),
            ("/lab/pass", b'{"mistake": "nope", "description": ""}', "no mistake 'nope'"),
            ("/lab/pass", b'{"mistake": "pool-spread", "description": ""}', "cannot be made so"),
        ],
    )
    def test_what_is_wrong_is_said(self, tab, path, body, match):
        assert match in tab.post(path, data=body, status=400)["error"]
        assert tab.get("/document")["loss"] > 0  # and the page goes on

    def test_what_does_not_exist(self, tab):
        assert tab.post("/nothing", status=404)["error"]
        assert tab.get("/step", status=405)["error"]
        tab.session = "unknown"
        assert "reload the page" in tab.get("/document", status=404)["error"]

    def test_a_body_that_is_too_large(self, tab):
        path = f"/api/sessions/{tab.session}/image"
        status, _, content = tab.raw("POST", path, Content_Length=str(2**40))
        assert status == 413
        assert b"1 MiB" in content

    def test_a_body_that_says_it_is_small(self, tab):
        """Chunked: without a length, the server has to count."""
        connection = http.client.HTTPConnection("127.0.0.1", tab.server.port, timeout=60)
        headers = {"X-Fullback-Token": tab.server.access.token}
        parts = (b"x" * 2**16 for _ in range(20))
        connection.request(
            "POST", f"/api/sessions/{tab.session}/image", parts, headers, encode_chunked=True
        )
        assert connection.getresponse().status == 413
        connection.close()

    def test_a_broken_handler_is_told_and_the_server_goes_on(self, tab, monkeypatch):
        def broken(self):
            raise RuntimeError("a bug")

        monkeypatch.setattr(session.Session, "document", broken)
        status, headers, content = tab.raw("GET", f"/api/sessions/{tab.session}/document")
        assert status == 500
        assert "RuntimeError: a bug" in json.loads(content)["error"]
        assert "default-src 'none'" in headers["content-security-policy"]
        monkeypatch.undo()
        assert tab.get("/document")


FEW_FILES = """
import resource, sys, time, urllib.request

resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
import fullback as fb
from fullback.explorer.launch import explorer

with explorer(fb.zoo.question(), fb.load_data("digits"), port=0) as server:
    print(server.address, flush=True)
    sys.stdin.readline()
"""


class TestLimits:
    """What requests may take: connections, time, bytes, work, lines in the log."""

    @pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
    def test_silent_connections(self):
        """300 of them, where the process may open 256 files: the page is there, the log short.

        They send nothing, or half a head.
        """
        process = subprocess.Popen(
            [sys.executable, "-c", FEW_FILES],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        address = process.stdout.readline().split("#")[0]
        port = int(address.rstrip("/").rpartition(":")[2])
        with Silent(port, 300, b"", b"GET / HTTP/1.1\r\nHost: x\r\nA: ") as connections:
            for _ in range(3):
                with urllib.request.urlopen(address, timeout=5) as page:
                    assert page.status == 200
            assert ended(connections[0], 5)  # to make room
        _, err = process.communicate("end\n", timeout=60)
        assert process.returncode == 0
        assert len(err) < 2000, err
        assert "Traceback" not in err

    def test_time_for_a_head(self, server, tab, monkeypatch):
        monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
        for said in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "):
            with Silent(server.port, 1, said) as (connection,):
                for _ in range(4):  # a byte now and then gives no more time
                    with contextlib.suppress(OSError):
                        connection.sendall(b"x")
                    time.sleep(0.1)
                assert ended(connection, 5)
        assert tab.get("/document")

    def test_time_for_the_next_head(self, server, monkeypatch):
        monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
        whole = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()
        with Silent(server.port, 1, whole) as (connection,):
            assert connection.recv(20).startswith(b"HTTP/1.1 200 OK")
            connection.sendall(b"GET / HTTP/1.1\r\n")
            assert ended(connection, 5)

    def upload(self, tab, length, sent):
        return (
            f"POST /api/sessions/{tab.session}/upload HTTP/1.1\r\nHost: {tab.host}\r\n"
            f"X-Fullback-Token: {tab.server.access.token}\r\nContent-Length: {length}\r\n\r\n"
        ).encode() + b"x" * sent

    def test_time_for_a_body(self, server, tab, monkeypatch):
        monkeypatch.setattr(bodies, "BODY_SECONDS", 0.3)
        with Silent(server.port, 1, self.upload(tab, 1000, 10)) as (connection,):
            connection.settimeout(5)
            assert connection.recv(2**16).startswith(b"HTTP/1.1 408 ")
            assert ended(connection, 5)
        assert tab.get("/document")

    def test_time_for_an_answer(self, server, tab, monkeypatch):
        """Of somebody who asks for a lot and reads nothing."""
        monkeypatch.setattr(connections, "ANSWER_SECONDS", 0.3)
        path = f"GET /api/sessions/{tab.session}/document HTTP/1.1\r\nHost: {tab.host}\r\n"
        asked = f"{path}X-Fullback-Token: {server.access.token}\r\n\r\n".encode() * 200
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", server.port))
            connection.sendall(asked)
            assert self.is_broken_within(connection, 20)
        assert tab.get("/document")

    def is_broken_within(self, connection, seconds):
        deadline = time.monotonic() + seconds
        try:
            while time.monotonic() < deadline:
                connection.sendall(b"\r\n")
                time.sleep(0.05)
        except OSError:
            return True
        return False

    def test_bytes_in_flight(self, server, tab, monkeypatch):
        monkeypatch.setattr(bodies, "MOST_BYTES_IN_FLIGHT", 100_000)
        half = self.upload(tab, 200_000, 60_000)
        with Silent(server.port, 1, half), Silent(server.port, 1, half) as (connection,):
            connection.settimeout(5)
            assert connection.recv(2**16).startswith(b"HTTP/1.1 503 ")
        deadline = time.monotonic() + 10
        while tab.raw("POST", f"/api/sessions/{tab.session}/upload", b"x" * 90_000)[0] == 503:
            assert time.monotonic() < deadline  # the first one has gone
        assert tab.get("/document")

    def test_requests_of_one_tab(self, server, tab):
        other = Browser(server)
        other.open()
        waiting = self.upload(tab, 1000, 10)
        with Silent(server.port, limits.MOST_REQUESTS_OF_A_TAB, waiting):
            deadline = time.monotonic() + 10
            while (status := tab.raw("GET", f"/api/sessions/{tab.session}"))[0] == 200:
                assert time.monotonic() < deadline
            assert status[0] == 429
            assert b"wait for their answers" in status[2]
            assert other.get("/document")

    def test_requests_of_all_tabs(self, server, tab, monkeypatch):
        monkeypatch.setattr(limits, "MOST_REQUESTS", 3)
        other = Browser(server)
        other.open()
        with Silent(server.port, 3, self.upload(tab, 1000, 10)):
            deadline = time.monotonic() + 10
            while (status := other.raw("GET", f"/api/sessions/{other.session}"))[0] == 200:
                assert time.monotonic() < deadline
            assert status[0] == 503

    def test_memory_of_a_batch(self, server, tab, monkeypatch):
        monkeypatch.setattr(training, "MOST_BYTES", 2**26)
        tab.post("/network", {"text": "conv64 batchnorm relu pool flatten dense10"})
        error = tab.post("/training", {"epochs": 1, "batch_size": 640}, status=400)["error"]
        assert re.search(r"in batches of 640 takes [\d,.]+ (MiB|GiB) of memory, and one", error)
        assert tab.post("/training", {"epochs": 1, "batch_size": 16})

    def test_one_line_a_failure_and_few_a_minute(self, tab, monkeypatch, capfd):
        log = logging.getLogger("fullback.explore")
        monkeypatch.setattr(server_log, "ONE_LINE", own := server_log.OneLine())
        for name in ("fullback.explore", "uvicorn.error"):
            for old in logging.getLogger(name).filters[:]:
                logging.getLogger(name).removeFilter(old)
            logging.getLogger(name).addFilter(own)

        def broken(self):
            raise RuntimeError("a bug\n\x1b[2J of many lines")

        written = []
        monkeypatch.setattr(log, "handlers", [handler := logging.Handler()])
        handler.emit = lambda record: written.append(handler.format(record))
        monkeypatch.setattr(session.Session, "document", broken)
        for _ in range(20):
            assert tab.raw("GET", f"/api/sessions/{tab.session}/document")[0] == 500
        path = f"/api/sessions/{tab.session}/document"
        assert written == [rf"GET {path} failed: RuntimeError: a bug\n\x1b[2J of many lines"] * 5
        own._begin -= 100
        tab.raw("GET", f"/api/sessions/{tab.session}/document")
        assert written[-1].endswith("(15 lines before were left out)")
        assert "Traceback" not in capfd.readouterr().err

    def test_uploads_that_break_off_are_no_failures(self, server, tab, capfd):
        with Silent(server.port, 3, self.upload(tab, 1000, 10)):
            pass
        assert tab.get("/document")
        time.sleep(0.2)
        assert "failed" not in capfd.readouterr().err

    @pytest.mark.parametrize(
        "said",
        [
            b"\x00" * 100 + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"x" * 100_000,
            b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        ],
    )
    def test_what_is_no_http(self, server, tab, said):
        with Silent(server.port, 1, said) as (connection,):
            connection.settimeout(10)
            if said.startswith(b"\x16"):
                connection.sendall(b"\r\n" * 2)
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(2**16).startswith((b"HTTP/1.1 4", b""))
            assert ended(connection, 5)
        assert tab.get("/document")

    def test_no_web_sockets(self, server, tab):
        status, _, _ = tab.raw(
            "GET", "/", Connection="Upgrade", Upgrade="websocket", Sec_WebSocket_Version="13",
            Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==",
        )  # fmt: skip
        assert status == 200

    @pytest.mark.parametrize(
        "body",
        [
            b'{"epochs": 1e9}', b'{"epochs": 1000000000}', b'{"epochs": 1' + b"0" * 5000 + b"}",
            b'{"epochs": 1, "rate": 1e400}', b'{"epochs": 1, "rate": NaN}', b'{"epochs": "1"}',
            b'{"epochs": true}', b'{"epochs": 1, "batch_size": 1e3}', b"[" * 100_000,
            b'{"a":' * 100_000, b'{"epochs": 1, "freeze": ["\\ud800"]}', b"\xff\xfe{}",
            b'{"epochs": 1, "freeze": [' + b'"conv",' * 1000 + b'"conv"]}',
            b'{"epochs": 1, "seed": -1}',
        ],
    )  # fmt: skip
    def test_numbers_and_depths(self, tab, body):
        error = tab.post("/training", data=body, status=400)["error"]
        assert len(error) < 400


class TestUploads:
    def test_a_picture(self, tab):
        pixels = np.zeros((56, 56), np.uint8)
        pixels[10:46, 26:32] = 255
        shown = tab.post("/upload", data=png(pixels))
        assert shown["image"] == {"from": "upload", "inverted": False, "label_given": False}
        assert numbers(shown["input"])[0, 14, 14] > 0.9
        inverted = tab.post("/upload?invert=1", data=png(255 - pixels))
        np.testing.assert_array_equal(numbers(inverted["input"]), numbers(shown["input"]))

    @pytest.mark.parametrize("kind", ["JPEG", "GIF", "BMP", "WEBP", "PNG"])
    def test_formats(self, tab, kind):
        from PIL import Image

        file = io.BytesIO()
        Image.new("RGB", (40, 30), "white").save(file, kind)
        shown = tab.post("/upload", data=file.getvalue())
        assert numbers(shown["input"]).min() > 0.98

    def test_sixteen_bits(self, tab):
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(np.full((28, 28), 6_553, np.uint16)).save(file, "PNG")
        shown = tab.post("/upload", data=file.getvalue())
        np.testing.assert_allclose(numbers(shown["input"]), 6_553 / 65_535, rtol=1e-5)
        inverted = tab.post("/image", {"invert": True})
        np.testing.assert_allclose(numbers(inverted["input"]), 1 - 6_553 / 65_535, rtol=1e-5)

    def test_a_large_picture(self, tab):
        from PIL import Image

        file = io.BytesIO()
        Image.new("1", (4_001, 4_000)).save(file, "PNG")
        error = tab.post("/upload", data=file.getvalue(), status=400)["error"]
        assert "the picture: has 4001 x 4000 pixels; expected at most 16,000,000" in error

    def bomb(self):
        """A small PNG that says it has 40,000 x 40,000 pixels."""

        def chunk(kind, data):
            body = kind + data
            return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

        head = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
        rows = zlib.compress(b"\0" * 1000)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows)

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"nonsense",
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run",
            b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
            b"/etc/passwd",
            png(np.arange(2500, dtype=np.uint8).reshape(50, 50) ** 2)[:200],
            b"\x89PNG\r\n\x1a\n" + os.urandom(200),
        ],
        ids=["empty", "nonsense", "PostScript", "SVG", "a path", "cut off", "damaged"],
    )
    def test_hostile_pictures(self, tab, body):
        before = tab.get("/document")
        error = tab.post("/upload", data=body, status=400)["error"]
        assert "picture" in error
        assert "/tmp" not in error
        assert tab.get("/document") == before

    def test_a_decompression_bomb(self, tab):
        started = time.monotonic()
        error = tab.post("/upload", data=self.bomb(), status=400)["error"]
        assert "too many pixels" in error
        assert time.monotonic() - started < 2

    def test_more_than_the_limit(self, tab):
        path = f"/api/sessions/{tab.session}/upload"
        status, _, content = tab.raw("POST", path, Content_Length=str(9 * 2**20))
        assert status == 413
        assert b"8 MiB" in content

    def test_nothing_is_left_behind(self, tab, tmp_path, monkeypatch):
        monkeypatch.setattr(uploads.tempfile, "tempdir", str(tmp_path))
        tab.post("/upload", data=png(np.zeros((9, 9), np.uint8)))
        tab.post("/model", data=b"nonsense", status=400)
        assert not list(tmp_path.iterdir())

    def test_a_model(self, tab, tmp_path):
        net = fb.Network.parse("conv2 relu flatten dense4", (3, 12, 10), seed=3)
        fb.save(net, tmp_path / "own.safetensors")
        made = tab.post("/model", data=(tmp_path / "own.safetensors").read_bytes())
        assert made["state"]["text"] == "conv2 relu flatten dense4"
        assert made["state"]["input_shape"] == [3, 12, 10]
        assert not made["state"]["data"]["fits"]
        assert made["state"]["actions"] is None
        np.testing.assert_array_equal(
            numbers(made["document"]["parameters"]["conv1.weight"]), net.parameters["conv1.weight"]
        )
        shown = tab.post("/upload", data=png(np.full((20, 20, 3), 200, np.uint8), "RGB"))
        assert numbers(shown["input"]).shape == (3, 12, 10)
        for path in ("/training", "/image", "/lab/curves"):
            body = {"epochs": 1, "part": "test", "index": 0, "mistake": "sign-flipped"}
            body["description"] = "t - p stands for p - t"
            assert (
                "but digits has images of 1 x 28 x 28" in tab.post(path, body, status=400)["error"]
            )
        assert tab.get("/lab")["mistakes"]
        changed = tab.post(
            "/lab/pass", {"mistake": "sign-flipped", "description": body["description"]}
        )
        assert all(row["changed"] for row in changed["rows"])

    def test_hostile_models(self, tab, net, tmp_path):
        fb.save(net, tmp_path / "m.safetensors")
        good = (tmp_path / "m.safetensors").read_bytes()
        text = json.dumps({"__metadata__": {"fullback": "{}"}}).encode()
        bodies = [
            b"", b"nonsense", good[:100], good[:-5], b"\xff" * 64, b"\x80\x04K\x01.",
            struct.pack("<Q", 2**60) + b"{}", struct.pack("<Q", len(text)) + text,
        ]  # fmt: skip
        for body in bodies:
            error = tab.post("/model", data=body, status=400)["error"]
            assert str(tmp_path) not in error
            assert "/tmp" not in error
        assert tab.get("")["name"] == "question"

    def test_a_model_that_is_too_much_to_show(self, tab, tmp_path):
        fb.save(fb.Network.parse("flatten dense5600", (1, 28, 28)), tmp_path / "m.safetensors")
        body = (tmp_path / "m.safetensors").read_bytes()
        assert "at most 4,000,000" in tab.post("/model", data=body, status=400)["error"]

    def test_saving(self, tab, tmp_path, data):
        tab.post("/step", {"rate": 0.01})
        _, headers, content = tab.raw("GET", f"/api/sessions/{tab.session}/model")
        assert headers["content-type"] == "application/octet-stream"
        (tmp_path / "m.safetensors").write_bytes(content)
        saved = fb.load(tmp_path / "m.safetensors")
        shown = tab.get("/document")
        np.testing.assert_array_equal(
            numbers(shown["parameters"]["dense1.weight"]), saved.parameters["dense1.weight"]
        )


class TestNetworks:
    def test_text(self, tab):
        text = (
            "conv4(kernel_size=5, padding=valid) relu pool3(stride=2) flatten dropout0.25 dense10"
        )
        made = tab.post("/network", {"text": f"  {text}\n", "seed": 4})
        assert made["state"]["text"] == text
        assert made["state"]["actions"] == [{"do": "network", "text": text, "seed": 4}]
        wanted = fb.Network.parse(text, (1, 28, 28), seed=4)
        np.testing.assert_array_equal(
            numbers(made["document"]["parameters"]["conv1.weight"]),
            wanted.parameters["conv1.weight"],
        )

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("", "is empty"),
            ("cnov8", "did you mean conv"),
            ("conv8 dense10", "dense1 after conv1"),
            ("flatten dense7", "end with dense10"),
            ("flatten dense999999999", "units must be at most 268,435,456"),
            ("flatten dense400000", "313,600,000 parameters|the network would have"),
            ("flatten dense5600 dense10", "at most 4,000,000"),
            ("conv2500(kernel_size=1) flatten dense1", "at most"),
            ("relu " * 61 + "flatten dense10", "at most 60"),
            ("conv8 " * 400, "may have 2000 characters"),
            ("<script>alert(1)</script>", "cannot read"),
        ],
    )
    def test_text_that_will_not_do(self, tab, text, match):
        assert re.search(match, tab.post("/network", {"text": text}, status=400)["error"])
        assert tab.get("")["name"] == "question"

    def test_a_normalize_layer_is_measured(self, tab, data):
        made = tab.post("/network", {"text": "normalize flatten dense10"})
        first = numbers(made["document"]["activations"]["normalize1"])
        x = data.x_train[:4096] / 255
        wanted = (numbers(made["document"]["input"]) - x.mean()) / x.std()
        np.testing.assert_allclose(first, wanted, rtol=1e-3, atol=1e-3)

    def test_reset(self, tab):
        made = tab.post("/reset", {"seed": 9})
        wanted = fb.zoo.question(seed=9)
        np.testing.assert_array_equal(
            numbers(made["document"]["parameters"]["conv2.weight"]),
            wanted.parameters["conv2.weight"],
        )


class TestTraining:
    def test_one_step(self, tab, net, data):
        shown = tab.get("/document")
        index, label = shown["image"]["index"], shown["label"]
        made = tab.post("/step", {"rate": 0.001})
        x, y = data.x_test[index : index + 1], data.y_test[index : index + 1]
        own = net.copy()
        before = own.trace(x, y)
        for name, gradient in before.gradients.items():
            own.parameters[name] -= np.float32(0.001) * gradient
        after = own.trace(x, y)
        assert made["label"] == label
        assert made["before"]["loss"] == pytest.approx(before.loss)
        assert made["after"]["loss"] == pytest.approx(after.loss, rel=1e-4)
        assert made["after"]["loss"] < made["before"]["loss"]
        np.testing.assert_allclose(
            made["after"]["probabilities"], after.probabilities[0], rtol=1e-3
        )
        assert made["document"]["loss"] == pytest.approx(made["after"]["loss"])

    def test_a_step_with_frozen_filters(self, tab):
        before = tab.get("/document")["parameters"]
        made = tab.post("/step", {"rate": 0.01, "freeze": ["conv1", "conv2"]})
        after = made["document"]["parameters"]
        changed = {name for name in before if before[name] != after[name]}
        assert changed
        assert not {name for name in changed if name.startswith("conv")}

    def test_a_step_that_is_too_large_is_taken_back(self, tab):
        tab.post("/network", {"text": LINEAR})
        path, body = f"/api/sessions/{tab.session}/step", b'{"rate": 100}'
        before = {}
        for label in range(9):
            before = tab.post("/label", {"label": label})["parameters"]
            status, _, content = tab.raw("POST", path, body)
            if status == 400:
                break
        assert "the step was taken back" in json.loads(content)["error"]
        assert tab.get("/document")["parameters"] == before

    def test_a_run_is_fit_s(self, tab, data):
        tab.post("/reset", {"seed": 5})
        tab.post("/training", {"epochs": 3, "seed": 2, "rate": 0.02})
        report = tab.until_done()
        assert report["finished"]
        assert [epoch["epoch"] for epoch in report["epochs"]] == [1, 2, 3]
        own = fb.zoo.question(seed=5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", fb.DeadUnitWarning)
            history = fb.fit(
                own, data.x_train, data.y_train, epochs=3, seed=2, verbose=False,
                optimizer=fb.SGD(0.02, momentum=0.9, nesterov=True, clip_norm=2.0),
            )  # fmt: skip
        assert [epoch["loss"] for epoch in report["epochs"]] == pytest.approx(history["loss"])
        shown = tab.get("/document")["parameters"]
        for name, array in own.parameters.items():
            np.testing.assert_array_equal(numbers(shown[name]), array)

    def test_pausing_changes_nothing(self, tab):
        options = {"epochs": 4, "seed": 1, "freeze": ["conv1"]}
        tab.post("/training", options | {"pace": "slow"})
        time.sleep(0.15)
        paused = tab.post("/training/pause")
        assert not paused["running"]
        assert 0 < paused["batches"] < paused["total"]
        still = tab.get("/document")["parameters"]
        time.sleep(0.1)
        assert tab.get("/document")["parameters"] == still
        tab.post("/training/pace", {"pace": "full"})
        tab.post("/training/resume")
        assert tab.until_done()["finished"]
        other = Browser(tab.server)
        other.open()
        other.post("/training", options)
        other.until_done()
        ours, theirs = (t.get("/document")["parameters"] for t in (tab, other))
        assert ours == theirs
        assert ours["conv1.weight"] == still["conv1.weight"]

    def test_while_it_trains(self, tab):
        tab.post("/training", {"epochs": 200, "pace": "slow"})
        for path, body in (
            ("/training", {"epochs": 1}), ("/step", {}), ("/reset", {}),
            ("/network", {"text": "flatten dense10"}),
        ):  # fmt: skip
            assert "pause it first" in tab.post(path, body, status=400)["error"]
        started = time.monotonic()
        assert tab.post("/image", {"part": "test", "index": 3})["loss"]
        assert time.monotonic() - started < 1
        while not (live := tab.get("/training?document=1&first=0"))["losses"]:
            time.sleep(0.02)
        assert live["document"]["program"]
        assert live["losses"][0][0] >= 1
        tab.post("/training/pause")

    def test_a_rate_that_is_too_large(self, tab):
        tab.post("/network", {"text": LINEAR})
        tab.post("/training", {"epochs": 5, "rate": 90, "schedule": "constant"})
        report = tab.until_done()
        assert "90 is too large" in report["failure"]
        assert tab.get("/document")["program"]
        assert "loss" in tab.post("/reset", {"seed": 0})["document"]

    def test_a_float64_network(self, data):
        net = fb.zoo.question(dtype="float64")
        with explorer(net, data, port=0) as server:
            tab = Browser(server)
            tab.open()
            tab.post("/training", {"epochs": 1})
            assert tab.until_done()["finished"]

    def test_old_losses_are_thinned_out(self, monkeypatch, net, data):
        monkeypatch.setattr(training, "MOST_POINTS", 10)
        own = net.copy()
        parts = (data.x_train, data.y_train), (data.x_test, data.y_test)
        trainer = training.Trainer(own, threading.RLock(), *parts, training.Run(epochs=5))
        trainer.train(40)
        assert trainer.done == 40
        assert len(trainer.progress.losses) <= 11


def test_weights_that_are_not_finite(net, data):
    """The page shows them, and everything else says what is wrong."""
    broken = net.copy()
    broken.parameters["conv2.weight"] = np.full((1, 1, 3, 3), np.nan)
    with explorer(broken, data, port=0) as server:
        tab = Browser(server)
        tab.open()
        shown = tab.get("/document")
        assert shown["loss"] is None
        assert np.isnan(numbers(shown["activations"]["conv2"])).all()
        choice = {"mistake": "sign-flipped", "description": "t - p stands for p - t"}
        for path, body in (("/step", {}), ("/lab/pass", choice)):
            status, _, content = tab.raw(
                "POST", f"/api/sessions/{tab.session}{path}", json.dumps(body).encode()
            )
            assert status in (200, 400), content
        assert tab.get("/images", status=400)["error"]
        for path in ("/lab/checks", "/lab/curves"):
            assert tab.lines(path, choice)
        tab.post("/training", {"epochs": 1})
        assert "not finite" in tab.until_done()["failure"]
        assert tab.post("/reset", {"seed": 0})["document"]["loss"]


def test_a_bug_in_training_is_told(tab, monkeypatch):
    def broken(self, count):
        raise RuntimeError("a bug")

    monkeypatch.setattr(training.Trainer, "_piece", broken)
    monkeypatch.setattr(threading, "excepthook", lambda given: None)
    tab.post("/training", {"epochs": 1})
    assert "RuntimeError('a bug')" in tab.until_done()["failure"]


class TestTabs:
    def test_each_has_its_own_network(self, server):
        one, other = Browser(server), Browser(server)
        one.open()
        other.open()
        before = other.get("/document")
        one.post("/step", {"rate": 0.01})
        one.post("/image", {"part": "train", "index": 5})
        assert other.get("/document") == before

    def test_the_oldest_make_room(self, net, data, monkeypatch):
        monkeypatch.setattr(sessions, "MOST_SESSIONS", 2)
        with explorer(net, data, port=0) as server:
            tabs = [Browser(server) for _ in range(3)]
            tabs[0].open()
            tabs[0].post("/training", {"epochs": 500, "pace": "slow"})
            tabs[1].open()
            tabs[0].get("")  # used again
            tabs[2].open()
            tabs[0].get("")
            tabs[1].get("", status=404)


class TestLinks:
    def link(self, tab):
        state, shown = tab.get(""), tab.get("/document")
        image = {key: shown["image"][key] for key in ("part", "index") if key in shown["image"]}
        return {"start": state["start"], "actions": state["actions"], "image": image,
                "label": shown["label"]}  # fmt: skip

    def test_a_link_restores_weights_image_and_label(self, tab, server):
        tab.post("/network", {"text": "conv2 relu pool flatten dense10", "seed": 1})
        tab.post("/training", {"epochs": 2, "seed": 3})
        tab.until_done()
        tab.post("/step", {"rate": 0.01})
        tab.post("/training", {"epochs": 50, "pace": "slow", "freeze": ["conv1"]})
        time.sleep(0.2)
        tab.post("/training/pause")
        tab.post("/image", {"part": "train", "index": 17})
        tab.post("/label", {"label": 3})
        link = self.link(tab)
        assert [action["do"] for action in link["actions"]] == ["network", "train", "step", "train"]
        other = Browser(server)
        assert other.open(**link)["left_out"] is None
        assert other.get("/document") == tab.get("/document")
        assert other.get("")["actions"] == link["actions"]

    def test_a_link_of_another_network(self, server):
        other = Browser(server)
        state = other.open(start="12345678", image={"part": "test", "index": 9})
        assert "another network" in state["left_out"]
        assert other.get("/document")["image"]["index"] == 9

    @pytest.mark.parametrize(
        "link",
        [
            {"actions": 3},
            {"actions": [3]},
            {"actions": [{"do": "format"}]},
            {"actions": [{"do": "network", "text": "rm -rf /"}]},
            {"actions": [{"do": "train", "epochs": 10**9}]},
            {"actions": [{"do": "step"}]},
            {"actions": [{}] * 1000},
            {"image": 3},
            {"image": {"part": "test", "index": 10**8}},
            {"image": {"pixels": "AAAA"}},
            {"label": "x"},
            {"partial": True},
        ],
    )
    def test_damaged_links(self, server, link):
        other = Browser(server)
        assert other.open(**link)["left_out"]
        assert other.get("/document")["loss"] > 0

    def test_a_link_that_would_take_too_long(self, server):
        run = {"do": "train", "epochs": 500, "batches": 11_000}
        state = Browser(server).open(actions=[run, run])
        assert "take too long" in state["left_out"]

    def test_what_was_trained_before_a_reset_is_left_out(self, tab):
        tab.post("/training", {"epochs": 1})
        tab.until_done()
        tab.post("/reset", {"seed": 3})
        assert tab.get("")["actions"] == [{"do": "reset", "seed": 3}]


class TestLab:
    def choice(self, tab, mistake, way=0):
        (entry,) = [entry for entry in tab.get("/lab")["mistakes"] if entry["id"] == mistake]
        return {"mistake": mistake, "description": entry["ways"][way]["description"]}

    def test_the_whole_catalogue(self, tab):
        entries = tab.get("/lab")["mistakes"]
        assert [entry["id"] for entry in entries] == [
            m for m in lab.MISTAKES if m not in lab.ELSEWHERE
        ]
        for entry in entries:
            assert entry["sentence"]
            assert entry["mend"]
            assert entry["ways"] or (entry["needs"] and entry["network"])

    def test_what_a_network_cannot_have_another_can(self, tab):
        for entry in tab.get("/lab")["mistakes"]:
            if not entry["ways"]:
                own = Browser(tab.server)
                own.open()
                own.post("/network", {"text": entry["network"]})
                changed = own.post("/lab/pass", self.choice(own, entry["id"]))
                assert any(row["changed"] for row in changed["rows"]), entry["id"]

    def test_the_right_pass_is_the_trace(self, net, data):
        batch = lab.Batch.of(net, data.x_train[:5], data.y_train[:5])
        made = lab.backward(batch.forward_pass, {})
        trace = batch.net.trace(data.x_train[:5], data.y_train[:5])
        for name, array in trace.deltas.items():
            np.testing.assert_allclose(made.deltas[name], array, rtol=1e-9, atol=1e-15)
        for name, array in trace.gradients.items():
            np.testing.assert_allclose(made.gradients[name], array, rtol=1e-9, atol=1e-15)

    def test_a_wrong_pass(self, tab):
        made = tab.post("/lab/pass", self.choice(tab, "filter-not-turned"))
        assert made["images"] == 5
        assert made["places"] == ["conv2", "conv1"]
        rows = {f"{row['kind']} {row['name']}": row for row in made["rows"]}
        assert len(rows) == len(made["rows"])
        changed = {name for name, row in rows.items() if row["changed"]}
        assert changed == {
            "delta pool1", "delta relu1", "delta conv1", "gradient conv1.weight",
            "gradient conv1.bias", "delta input",
        }  # fmt: skip
        weight = rows["gradient conv1.weight"]
        right, wrong = numbers(weight["right"]), numbers(weight["wrong"])
        error = np.linalg.norm(wrong - right) / np.linalg.norm(right)
        assert weight["error"] == pytest.approx(error, rel=1e-4)
        assert "right" not in rows["delta dense2"]

    def test_in_one_layer(self, tab):
        made = tab.post("/lab/pass", self.choice(tab, "filter-not-turned") | {"layer": "conv1"})
        assert made["places"] == ["conv1"]
        assert [row["name"] for row in made["rows"] if row["changed"]] == ["input"]

    def test_checks(self, tab):
        rows = tab.lines("/lab/checks", self.choice(tab, "filter-not-turned"))
        found = {row["check"]: row for row in rows}
        assert [*found] == [
            "shapes", "row sums", "one image", "noise", "batch", "diagnose", "diagnose with deltas",
        ]  # fmt: skip
        assert [row["caught"] for row in rows] == [False, False, *[True] * 5]
        assert found["diagnose"]["names_it"]
        assert "conv1.weight" in found["batch"]["description"]

    @pytest.mark.parametrize(
        ("mistake", "check"),
        [
            ("last-sample-only", "one image"),
            ("batch-scale", "one image"),
            ("pool-ties-all", "noise"),
        ],
    )
    def test_what_checks_do_not_see(self, tab, mistake, check):
        rows = tab.lines("/lab/checks", self.choice(tab, mistake))
        found = {row["check"]: row["caught"] for row in rows}
        assert not found[check]
        assert found["diagnose with deltas"]

    def test_curves(self, tab):
        rows = tab.lines("/lab/curves", self.choice(tab, "sign-flipped") | {"seed": 1})
        assert len(rows) == curves.STEPS
        assert rows[-1]["right"] < 0.7 * rows[0]["right"]
        assert rows[-1]["right_accuracy"] > 0.7
        assert rows[-1].get("wrong") is None or rows[-1]["wrong"] > rows[0]["wrong"]
        again = tab.lines("/lab/curves", self.choice(tab, "sign-flipped") | {"seed": 1})
        assert again == rows

    def test_gradients_that_are_not_cleared_pile_up(self, net, data):
        choice = lab.Choice(
            "gradients-not-cleared", "it is double: it was added to what earlier calls had left"
        )
        student = curves.Student(net, choice, 1e-9, 0)
        x, y = data.x_train[:8], data.y_train[:8]
        for _ in range(3):
            student.learn(x, y, 1.0)
        once = lab.backward(lab.Batch(student.net, x, y).forward_pass, {}).gradients["conv1.weight"]
        np.testing.assert_allclose(student.left["conv1.weight"], 3 * once, rtol=1e-4)


def test_start_up_is_not_slowed(tmp_path):
    """Neither Starlette nor the explorer is imported before it is asked for."""
    script = "import fullback as fb, sys; fb.zoo.question(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    modules = set(done.stdout.split())
    assert not modules & {"starlette", "uvicorn", "fullback.report", "fullback.explorer"}


class TestCommand:
    """``fullback explore`` as a process of its own."""

    def start(self, *arguments):
        return start("explore", "--port", 0, "--no-browser", *arguments)

    def events(self, process, count):
        return [json.loads(process.stdout.readline()) for _ in range(count)]

    @pytest.mark.skipif(os.name != "posix", reason="POSIX only")
    def test_train_serve_end(self):
        process = self.start("--json", "--seed", 2)
        with time_limit(process):
            made, address = self.events(process, 2)
            assert made["event"] == "trained"
            assert made["test_accuracy"] > 0.85
            page, _, token = address["address"].partition("/#token=")
            with urllib.request.urlopen(f"{page}/") as answer:
                assert b"<title>fullback explore</title>" in answer.read()
            request = urllib.request.Request(f"{page}/api/sessions", method="POST", data=b"{}")
            request.add_header("X-Fullback-Token", token)
            with urllib.request.urlopen(request) as answer:
                assert json.load(answer)["name"] == "question"
            process.send_signal(signal.SIGINT)
            assert [event["event"] for event in self.events(process, 1)] == ["end"]
            assert process.wait(30) == 0
            assert process.stderr.read() == ""
        process.stdout.close()
        process.stderr.close()

    def test_a_saved_model_is_not_trained(self, tmp_path, net):
        fb.save(net, tmp_path / "m.safetensors")
        process = self.start("--json", tmp_path / "m.safetensors")
        with time_limit(process):
            (address,) = self.events(process, 1)
            assert address["event"] == "address"
        process.wait(30)
        process.stdout.close()
        process.stderr.close()

    @pytest.mark.parametrize(
        ("arguments", "code", "match"),
        [
            (["nowhere.safetensors"], 1, "does not exist"),
            (["cnov8 dense10"], 2, "did you mean conv"),
            (["--host", "192.0.2.1"], 2, "cannot listen at 192.0.2.1"),
            (["--data", "nowhere"], 1, "unknown data set"),
        ],
    )
    def test_what_will_not_do(self, arguments, code, match):
        failed = self.start(*arguments)
        out, err = failed.communicate(timeout=60)
        assert failed.returncode == code
        assert match in err
        assert len(err.splitlines()) == 1
        assert "http://" not in out

    def test_the_browser_is_opened(self, monkeypatch):
        from fullback.explorer import serve
        from test_cli import run

        opened = []
        monkeypatch.setattr("webbrowser.open", opened.append)
        monkeypatch.setattr(serve.Explorer, "wait", lambda self: None)
        ran = run("explore", "--port", 0, columns=100)
        assert ran.code == 0
        assert len(opened) == 1
        assert opened[0] in ran.out
        assert "of the test images are right" in ran.out


DOCS = Path(__file__).parent.parent / "docs" / "explore.md"


@pytest.mark.skipif(not DOCS.exists(), reason="the tests are not in a checkout")
def test_the_python_of_the_docs_runs(monkeypatch, capsys):
    monkeypatch.chdir(DOCS.parent.parent)
    (snippet,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(snippet, DOCS, "exec"), {})
    assert capsys.readouterr().out.startswith("http://127.0.0.1:")


def test_the_document_is_what_fb_explain_writes(tab, net, data):
    shown = tab.post("/image", {"part": "test", "index": 4})
    own = document(net, data.x_test[4], int(data.y_test[4]), classes=[str(n) for n in range(10)])
    assert {key: shown[key] for key in own} == json.loads(json.dumps(own))


def test_the_page_holds_no_foreign_address():
    for path in (path for page in PAGES for path in page.iterdir()):
        text = path.read_text(encoding="utf-8")
        for foreign in ("https://", "http://", "//cdn", "@import"):
            assert foreign not in text.replace("http://www.w3.org/2000/svg", ""), path.name
