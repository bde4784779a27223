"""``fullback serve``: its answers are those of ``fullback predict``, whatever form images have."""

import contextlib
import http.client
import io
import json
import os
import re
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

import fullback as fb
from fullback.errors import InputError, ModelFileError, OptionError
from fullback.pixels import ImageRecord
from support.command import done
from support.files import as_png, header, png
from support.networks import some_digits, trained

pytest.importorskip("httptools", reason="needs the extra serve")
pytest.importorskip("orjson", reason="needs the extra serve")

from fullback.serve import blocks, handler, reading
from fullback.serve.launch import service

BOUNDARY = "frontier"
BOMB = png(header(40_000, 40_000), (b"IDAT", zlib.compress(b"\0" * 1000)))
"""A small PNG file that says it has 40,000 x 40,000 pixels."""

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


opened = []  # connections, which are closed after each test


@pytest.fixture(autouse=True)
def _close():
    yield
    while opened:
        opened.pop().close()


class Client:
    """Asks a server, over a connection that stays open."""

    def __init__(self, server):
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        opened.append(self.connection)

    def ask(self, method, path, body=None, kind=None, status=200, **headers):
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if kind is not None:
            given["Content-Type"] = kind
        self.connection.request(method, path, body, given)
        answer = self.connection.getresponse()
        content = answer.read()
        assert answer.status == status, content[:500]
        if "json" not in answer.headers["content-type"]:
            return content.decode()
        return json.loads(content, parse_constant=pytest.fail)

    def post(self, given, path="/predict", **options):
        body = given if isinstance(given, bytes) else json.dumps(given).encode()
        return self.ask("POST", path, body, options.pop("kind", "application/json"), **options)

    def post_files(self, files, **options):
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        return self.post(form(files), kind=kind, **options)

    def metric(self, name, **labels):
        wanted = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
        line = name + (f"{{{wanted}}}" if wanted else "") + " "
        text = self.ask("GET", "/metrics")
        return sum(float(row.split()[-1]) for row in text.splitlines() if row.startswith(line))


def form(files):
    """A form of files, each a name and content."""
    parts = b""
    for name, content in files:
        parts += (
            (
                f"--{BOUNDARY}\r\n"
                f'Content-Disposition: form-data; name="image"; filename="{name}"\r\n'
                "Content-Type: image/png\r\n\r\n"
            ).encode()
            + content
            + b"\r\n"
        )
    return parts + f"--{BOUNDARY}--\r\n".encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A classifier of digits with names, one of colours, and one that answers in numbers."""
    path = tmp_path_factory.mktemp("models")
    data = some_digits()
    digits = trained(fb.zoo.question(seed=1), data, epochs=3)
    digits.class_names = NAMES
    fb.save(digits, path / "digits.safetensors")
    colours = fb.Network.parse("conv2 relu flatten dense3", (3, 8, 6), seed=2)
    fb.save(colours, path / "colours.safetensors")
    loss = fb.MeanSquaredError()
    fb.save(fb.Network.parse("dense4 tanh dense2", (5,), loss=loss), path / "numbers.safetensors")
    return path


@pytest.fixture(scope="module")
def server(folder):
    with service([("digits", str(folder / "digits.safetensors"))], port=0) as server:
        yield server


@pytest.fixture(scope="module")
def several(folder):
    named = [(name, str(folder / f"{name}.safetensors")) for name in ("digits", "colours")]
    named.append(("numbers", str(folder / "numbers.safetensors")))
    with service(named, port=0) as server:
        yield server


@pytest.fixture
def client(server):
    return Client(server)


@pytest.fixture(scope="module")
def images():
    return some_digits().x_test[:40]


@pytest.fixture(scope="module")
def wanted(folder, images, tmp_path_factory):
    """What ``fullback predict --json`` says of the same images."""
    path = tmp_path_factory.mktemp("images") / "x.npy"
    np.save(path, images)
    events = done("predict", folder / "digits.safetensors", path, "--json").events
    names = ("label", "name", "probabilities")
    return [{name: event[name] for name in names} for event in events]


class TestAnswers:
    def test_pixels(self, client, images, wanted):
        assert client.post({"pixels": images.tolist()}) == {
            "model": "digits",
            "predictions": wanted,
        }

    def test_files(self, client, images, wanted):
        files = [(f"{n}.png", as_png(image[0])) for n, image in enumerate(images[:20])]
        assert client.post_files(files)["predictions"] == wanted[:20]

    @pytest.mark.parametrize("kind", ["image/png", "image/jpeg", "application/octet-stream"])
    def test_one_file(self, client, images, wanted, kind):
        """Its content says what it is, not its type."""
        assert client.post(as_png(images[0, 0]), kind=kind)["predictions"] == wanted[:1]

    def test_values(self, client, images, folder):
        values = images / np.float64(255)
        network = fb.load(folder / "digits.safetensors")
        found = client.post({"values": values.tolist()})["predictions"]
        wanted = network.predict_proba(values)
        assert [row["probabilities"] for row in found] == [
            [round(p, 6) for p in row] for row in wanted.tolist()
        ]
        assert [row["label"] for row in found] == network.predict(values).tolist()

    @pytest.mark.parametrize("shape", [(1, 28, 28), (28, 28), (1, 1, 28, 28)])
    def test_one_image_in_each_form(self, client, images, wanted, shape):
        found = client.post({"pixels": images[0].reshape(shape).tolist()})
        assert found["predictions"] == wanted[:1]

    def test_several_without_channels(self, client, images, wanted):
        assert client.post({"pixels": images[:3, 0].tolist()})["predictions"] == wanted[:3]

    def test_whole_numbers_may_be_written_with_a_point(self, client, images, wanted):
        pixels = images[0].astype(float).tolist()
        assert client.post({"pixels": pixels})["predictions"] == wanted[:1]

    def test_inverted(self, client, images, wanted):
        dark = client.post({"pixels": (255 - images[:2]).tolist()}, "/predict?invert=true")
        assert dark["predictions"] == wanted[:2]
        file = client.post(as_png(255 - images[0, 0]), "/predict?invert=1", kind="image/png")
        assert file["predictions"] == wanted[:1]
        values = client.post({"values": (1 - images[:2] / 255).tolist()}, "/predict?invert=true")
        assert values["predictions"] == wanted[:2]
        assert "warnings" not in dark
        assert "warnings" not in file

    def test_many_clients_at_once(self, server, images, wanted):
        def ask(n):
            client, found = Client(server), []
            for k in range(n % 3, len(images), 3):
                found.append(client.post({"pixels": images[k].tolist()})["predictions"][0])
            return found == wanted[n % 3 :: 3]

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(ask, range(12)))

    def test_the_threshold_of_the_model(self, folder, images, tmp_path):
        network = fb.load(folder / "digits.safetensors")
        network.threshold = fb.Threshold(8, 0.001)
        fb.save(network, tmp_path / "m.safetensors")
        with service([("m", str(tmp_path / "m.safetensors"))], port=0) as server:
            client = Client(server)
            found = client.post({"pixels": images.tolist()})["predictions"]
            (model,) = client.ask("GET", "/models")["models"]
        assert [row["label"] for row in found] == network.predict(images).tolist()
        assert sum(row["label"] == 8 for row in found) > 10
        assert model["threshold"] == {"label": 8, "value": 0.001}

    def test_the_scale_that_was_trained_on(self, folder, images, tmp_path):
        network = fb.load(folder / "digits.safetensors")
        network.trained_on = ImageRecord(-1.0, 1.0, -0.7, -1.0, -1.0, 1.0)
        fb.save(network, tmp_path / "m.safetensors")
        with service([("m", str(tmp_path / "m.safetensors"))], port=0) as server:
            found = Client(server).post({"pixels": images[:5].tolist()})["predictions"]
        wanted = network.predict_proba(images[:5].astype(np.float32) / 127.5 - 1)
        given = [row["probabilities"] for row in found]
        np.testing.assert_allclose(given, wanted, atol=1e-5)

    def test_numbers_and_colours(self, several, folder):
        client = Client(several)
        x = np.linspace(-1, 1, 15).reshape(3, 5)
        network = fb.load(folder / "numbers.safetensors")
        found = client.post({"values": x.tolist()}, "/predict/numbers")["predictions"]
        assert [row["values"] for row in found] == network.logits(x).tolist()
        colours = fb.load(folder / "colours.safetensors")
        y = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 6), np.uint8)
        found = client.post({"pixels": y.tolist()}, "/predict/colours")["predictions"]
        assert [row["label"] for row in found] == colours.predict(y).tolist()
        file = as_png(y[1].transpose(1, 2, 0).copy())
        assert client.post(file, "/predict/colours", kind="image/png")["predictions"] == [found[1]]

    def test_a_float64_network(self, tmp_path):
        network = fb.Network.parse("flatten dense3", (1, 4, 4), dtype="float64")
        fb.save(network, tmp_path / "m.safetensors")
        x = np.arange(16).reshape(4, 4)
        with service([("m", str(tmp_path / "m.safetensors"))], port=0) as server:
            (found,) = Client(server).post({"pixels": x.tolist()})["predictions"]
        assert found["label"] == network.predict(x[None].astype(np.uint8))[0]

    @pytest.mark.skipif("FULLBACK_DATA" not in os.environ, reason="needs MNIST at hand")
    def test_mnist(self, client, folder):
        x = fb.load_data("mnist").x_test[:1000]
        wanted = fb.load(folder / "digits.safetensors").predict_proba(x)
        found = []
        for start in range(0, 1000, 250):
            found += client.post({"pixels": x[start : start + 250].tolist()})["predictions"]
        given = [row["probabilities"] for row in found]
        assert given == [[round(p, 6) for p in row] for row in wanted.tolist()]


class TestWarnings:
    def test_dark_and_light(self, client, images):
        (note,) = client.post({"pixels": (255 - images[:2]).tolist()})["warnings"]
        assert note.startswith("2 images are dark on light, from 0 on, but the model was trained")
        assert note.endswith("try invert=true, which swaps dark and light")
        (note,) = client.post({"pixels": images[0].tolist()}, "/predict?invert=true")["warnings"]
        assert note.startswith("image 0 is dark on light")
        assert note.endswith("leave invert out")

    def test_another_scale(self, client, images):
        found = client.post({"values": images[0].tolist()})
        (note,) = found["warnings"]
        assert "the images go from 0 to 255, but the network was trained on images" in note

    def test_a_scale_that_is_not_known(self, folder, tmp_path):
        """As of standardised floats, to which no pixels can be brought."""
        network = fb.load(folder / "digits.safetensors")
        network.trained_on = ImageRecord(-3.0, 3.0, 0.0, -1.0, None, None)
        fb.save(network, tmp_path / "m.safetensors")
        with service([("m", str(tmp_path / "m.safetensors"))], port=0) as server:
            client = Client(server)
            for given, kind in (
                ({"pixels": [[0] * 28] * 28}, "application/json"),
                (as_png(np.zeros((28, 28), np.uint8)), "image/png"),
            ):
                error = client.post(given, kind=kind, status=400)["error"]
                assert "which of them are black and white is not known" in error
            values = {"values": [[0.5] * 28] * 28}
            assert client.post(values)["predictions"]
            error = client.post(values, "/predict?invert=true", status=400)["error"]
            assert "which values are black and white is not known" in error
            offered = client.ask("GET", "/openapi.json")["paths"]["/predict"]["post"]
        assert list(offered["requestBody"]["content"]) == ["application/json"]
        assert offered["parameters"] == []


DEEP = b"[" * 10**6
BAD_JSON = {
    b"": "not JSON",
    b"nonsense": "not JSON",
    b"\xff\xfe": "not JSON",
    b"[1, 2": "not JSON",
    b'{"values": [NaN]}': "not JSON",
    b'{"values": [Infinity]}': "not JSON",
    b"[[1, 2], [3, 4]]": "not an object with one of these two",
    b"3": "not an object with one of these two",
    b"null": "not an object with one of these two",
    b"{}": "not an object with one of these two",
    b'{"pixels": 1, "values": 2}': "not an object with one of these two",
    b'{"images": [1]}': "not an object with one of these two",
    b'{"pixels": null}': "something else than numbers",
    b'{"pixels": true}': "something else than numbers",
    b'{"pixels": "0"}': "something else than numbers",
    b'{"pixels": {}}': "28 x 28 numbers",
    b'{"pixels": 7}': "got no list",
    b'{"pixels": []}': "got 0",
    b'{"pixels": [[[]]]}': "got 1 x 1 x 0",
    b'{"pixels": [[1, 2], [3]]}': "got 2 x 2",
    b'{"pixels": ' + b"[" * 900 + b"]" * 900 + b"}": "got 1 x 1",
    DEEP: "not JSON",
    b'{"pixels": ' + DEEP: "not JSON",
    b'{"a":' * 10**5: "not JSON",
}


class TestRefusals:
    @pytest.mark.parametrize("body", BAD_JSON, ids=lambda body: body[:30].decode("latin-1"))
    def test_json(self, client, body):
        assert BAD_JSON[body] in client.post(body, status=400)["error"]
        assert client.ask("GET", "/health") == {"status": "ok"}

    @pytest.mark.parametrize(
        ("form", "number", "match"),
        [
            ("pixels", "256", "from 0 to 255, got 256"),
            ("pixels", "-1", "from 0 to 255, got -1"),
            ("pixels", "0.5", "from 0 to 255, got 0.5"),
            ("pixels", "1e400", "from 0 to 255|not JSON"),
            ("pixels", "9" * 30, "from 0 to 255|not JSON"),
            ("pixels", "[1]", "from 0 to 255"),
            ("pixels", "{}", "from 0 to 255"),
            ("pixels", "true", "something else than numbers"),
            ("pixels", '"1"', "something else than numbers"),
            ("values", "null", "something else than numbers"),
            ("values", "[1]", "something else than numbers"),
            ("values", "{}", "something else than numbers"),
            ("values", "1e10", r"from -1e\+09 to 1e\+09, got 1e\+10"),
            ("values", "-1e300", r"from -1e\+09 to 1e\+09"),
            ("values", "1e999", "from -1e|not JSON"),
            ("values", "9" * 5000, "from -1e|not JSON"),
        ],
    )
    def test_numbers(self, client, form, number, match):
        row = ", ".join(["0"] * 28)
        rows = [f"[{row}]"] * 27 + [f"[{row[3:]}, {number}]"]
        body = f'{{"{form}": [{", ".join(rows)}]}}'.encode()
        assert re.search(match, client.post(body, status=400)["error"])

    @pytest.mark.parametrize(
        "shape", [(28,), (28, 27), (27, 28), (2, 28, 27), (3, 28, 28, 1), (2, 2, 28, 28), (784,)]
    )
    def test_shapes(self, client, shape):
        error = client.post({"pixels": np.zeros(shape, int).tolist()}, status=400)["error"]
        assert "an image is 1 x 28 x 28 or 28 x 28 numbers" in error
        assert error.endswith(f"got {' x '.join(map(str, shape))}")

    def test_too_many_images(self, client):
        error = client.post({"pixels": np.zeros((257, 28, 28), int).tolist()}, status=400)["error"]
        assert "257 images are too many for one request; send at most 256" in error

    @pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
    def test_types(self, client, kind):
        assert "Content-Type must be" in client.post(b"{}", kind=kind, status=415)["error"]

    def test_compressed_bodies(self, client):
        error = client.post(b"{}", status=415, Content_Encoding="gzip")["error"]
        assert "must not be compressed" in error

    @pytest.mark.parametrize("query", ["invert=maybe", "inverted=true", "invert", "a=b", "%ff=1"])
    def test_queries(self, client, query):
        error = client.post({"pixels": [[0] * 28] * 28}, f"/predict?{query}", status=400)["error"]
        assert "the query may hold invert=true or invert=false" in error

    @pytest.mark.parametrize("path", ["/predict/other", "/predict/digits/x", "/predict/%2e%2e"])
    def test_unknown_models(self, client, path):
        error = client.post({"pixels": []}, path, status=404)["error"]
        assert error.startswith("there is no model")
        assert "/predict/digits" in error

    def test_several_models_need_a_name(self, several):
        client = Client(several)
        error = client.post({"pixels": []}, status=404)["error"]
        assert error == (
            "there are several models; ask for one of /predict/digits, /predict/colours, "
            "/predict/numbers"
        )
        assert client.post({"pixels": [[0] * 28] * 28}, "/predict/digits")["model"] == "digits"

    @pytest.mark.parametrize("kind", ["image/png", "multipart/form-data; boundary=x"])
    def test_files_for_a_network_that_takes_none(self, several, kind):
        error = Client(several).post(b"x", "/predict/numbers", kind=kind, status=415)["error"]
        assert error == "numbers takes 5 numbers, and no image files; send application/json"

    def test_methods_and_paths(self, client):
        for method, path, status in (
            ("GET", "/predict", 405),
            ("DELETE", "/predict/digits", 405),
            ("POST", "/health", 405),
            ("GET", "/", 404),
            ("GET", "/health/", 404),
            ("POST", "/predictions", 404),
            ("GET", "/../../etc/passwd", 404),
        ):
            assert client.ask(method, path, status=status)["error"]

    def test_numbers_that_overflow_in_the_network(self, folder, tmp_path):
        """They get their reason; those that were computed with them get their answers."""
        network = fb.load(folder / "digits.safetensors")
        network.parameters["dense2.weight"] = network.parameters["dense2.weight"] * 1e31
        fb.save(network, tmp_path / "m.safetensors")
        zero, large = {"values": [[0.0] * 28] * 28}, {"values": [[1e9] * 28] * 28}
        with service([("m", str(tmp_path / "m.safetensors"))], port=0) as server:
            with ThreadPoolExecutor(8) as pool:
                wrong = [
                    pool.submit(lambda: Client(server).post(large, status=400)) for _ in range(10)
                ]
                right = [pool.submit(lambda: Client(server).post(zero)) for _ in range(10)]
            assert all("not finite" in asked.result()["error"] for asked in wrong)
            assert all(asked.result()["predictions"] for asked in right)


class TestFiles:
    @pytest.mark.parametrize(
        ("content", "match"),
        [
            (b"", "not an image of a known format"),
            (b"nonsense", "not an image of a known format"),
            (b"%!PS-Adobe-3.0 EPSF-3.0", "but EPS"),
            (b"<svg onload='x'>", "but SVG"),
            (as_png(np.zeros((28, 28), np.uint8))[:50], "cannot be read"),
        ],
    )
    def test_damaged_ones(self, client, content, match):
        for error in (
            client.post(content, kind="image/png", status=400)["error"],
            client.post_files([("a.png", content)], status=400)["error"],
        ):
            assert match in error
            assert "/tmp" not in error

    def test_bombs(self, client):
        started = time.monotonic()
        error = client.post(BOMB, kind="image/png", status=400)["error"]
        assert error.startswith("the image: has")
        assert "make it smaller" in error
        large = Image.new("1", (8000, 2001))
        file = io.BytesIO()
        large.save(file, "PNG")
        error = client.post(file.getvalue(), kind="image/png", status=400)["error"]
        assert "8000 x 2001 pixels; expected at most 16,000,000" in error
        assert time.monotonic() - started < 30

    def test_the_file_is_named_that_is_wrong(self, client, images):
        files = [("good.png", as_png(images[0, 0])), ("bad\x1b[2J.png", b"x")]
        error = client.post_files(files, status=400)["error"]
        assert error.startswith("image 1 (bad[2J.png): is not an image")

    @pytest.mark.parametrize(
        ("body", "kind", "match"),
        [
            (b"", "multipart/form-data", "form cannot be read"),
            (b"", "multipart/form-data; boundary=x", "it has no end"),
            (b"--x--\r\n", "multipart/form-data; boundary=x", "no files|no end"),
            (b"nonsense", "multipart/form-data; boundary=x", "form cannot be read"),
            (b"--x\r\n", "multipart/form-data; boundary=x", "no files|form cannot be read"),
            (
                b"--x\r\nA: b\r\n\r\nc\r\n--x--",
                "multipart/form-data; boundary=x",
                "image 0: is not",
            ),
            (
                b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nc\r\n--x--\r\n',
                "multipart/form-data; boundary=x",
                "image 0: is not an image",
            ),
            (b"x" * 10**6, "multipart/form-data; boundary=x", "form cannot be read"),
            (b"x", "multipart/form-data; boundary=" + "y" * 5000, "form cannot be read"),
        ],
    )
    def test_forms(self, client, body, kind, match):
        assert re.search(match, client.post(body, kind=kind, status=400)["error"])

    def test_too_many_files(self, client, images):
        files = [("a.png", as_png(images[0, 0]))] * 33
        assert "too many files; send at most 32" in client.post_files(files, status=400)["error"]
        assert len(client.post_files(files[:32])["predictions"]) == 32

    def test_bits(self, client):
        """Files of 16 bits are floats, and are not mixed with bytes."""
        deep = as_png(np.full((28, 28), 40_000, np.uint16))
        assert client.post(deep, kind="image/png")["predictions"]
        flat = as_png(np.zeros((28, 28), np.uint8))
        files = [("a.png", deep), ("b.png", flat)]
        assert "8 bits and of others" in client.post_files(files, status=400)["error"]


class Gate:
    """Holds the thread that computes, until it is opened."""

    def __init__(self, monkeypatch):
        self.sizes, self.held, self.open = [], threading.Event(), threading.Event()
        answers = blocks.answers

        def hold(network, images):
            self.sizes.append(len(images))
            self.held.set()
            assert self.open.wait(60)
            return answers(network, images)

        monkeypatch.setattr(blocks, "answers", hold)


@pytest.fixture
def gate(monkeypatch):
    gate = Gate(monkeypatch)
    yield gate
    gate.open.set()


def until(true):
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class TestBlocks:
    def test_what_arrives_together_is_computed_together(
        self, server, images, gate, monkeypatch, client
    ):
        alone = {"pixels": images[0].tolist()}
        with ThreadPoolExecutor(20) as pool:
            first = pool.submit(lambda: Client(server).post(alone))
            assert gate.held.wait(60)
            others = [pool.submit(lambda: Client(server).post(alone)) for _ in range(15)]
            until(lambda: client.metric("fullback_waiting_images") == 16)
            gate.open.set()
            answers = [asked.result() for asked in (first, *others)]
        assert gate.sizes == [1, 15]
        assert answers.count(answers[0]) == 16

    def test_pieces_of_a_large_request_make_room(self, server, images, gate, client):
        """It is computed 16 images at a time, in order."""
        with ThreadPoolExecutor(2) as pool:
            asked = pool.submit(lambda: Client(server).post({"pixels": images.tolist()}))
            assert gate.held.wait(60)
            gate.open.set()
            assert len(asked.result()["predictions"]) == 40
        assert sum(gate.sizes) == 40
        assert gate.sizes[0] <= 16 * os.cpu_count()

    @pytest.mark.parametrize(("limit", "most"), [("", 20), ("_BYTES", 20 * 28 * 28)])
    def test_a_full_queue(self, server, images, gate, monkeypatch, client, limit, most):
        monkeypatch.setattr(blocks, f"MOST_WAITING{limit}", most)
        with ThreadPoolExecutor(2) as pool:
            asked = pool.submit(lambda: Client(server).post({"pixels": images[:20].tolist()}))
            assert gate.held.wait(60)
            body = json.dumps({"pixels": images[0].tolist()})
            client.connection.request(
                "POST", "/predict", body, {"Content-Type": "application/json"}
            )
            answer = client.connection.getresponse()
            assert answer.status == 503
            assert answer.headers["retry-after"] == "1"
            assert "try again in a moment" in json.loads(answer.read())["error"]
            gate.open.set()
            assert len(asked.result()["predictions"]) == 20
        assert client.post(json.loads(body))["predictions"]

    def test_too_long_a_wait(self, server, images, gate, monkeypatch, client):
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(lambda: Client(server).post({"pixels": images[0].tolist()}))
            assert gate.held.wait(60)
            late = pool.submit(
                lambda: Client(server).post({"pixels": images[0].tolist()}, status=503)
            )
            until(lambda: client.metric("fullback_waiting_images") == 2)
            monkeypatch.setattr(blocks, "WAIT_SECONDS", 0.0)
            gate.open.set()
            assert "had to wait for too long" in late.result()["error"]
            assert first.result()["predictions"]
        assert gate.sizes == [1]

    def test_too_many_files_to_decode(self, client, images, monkeypatch):
        monkeypatch.setattr(handler, "MOST_DECODING_BYTES", 10)
        error = client.post(as_png(images[0, 0]), kind="image/png", status=503)["error"]
        assert "too many image files" in error

    def test_a_mistake_in_the_server(self, client, images, monkeypatch, capfd):
        def broken(network, images):
            raise RuntimeError("a bug\nin two lines")

        monkeypatch.setattr(blocks, "answers", broken)
        error = client.post({"pixels": images[0].tolist()}, status=500)["error"]
        assert error == "something went wrong in the server (RuntimeError)"
        monkeypatch.undo()
        assert client.post({"pixels": images[0].tolist()})["predictions"]

    def test_what_was_begun_is_finished(self, folder, images, gate):
        """When the server is closed."""
        server = service([("digits", str(folder / "digits.safetensors"))], port=0)
        with contextlib.ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(3))
            with server:
                body = {"pixels": images[:20].tolist()}
                asked = [pool.submit(lambda: Client(server).post(body)) for _ in range(2)]
                watch = Client(server)
                until(lambda: watch.metric("fullback_waiting_images") == 40)
                closing = pool.submit(server.__exit__, None, None, None)
                until(lambda: refused(server.port))
                gate.open.set()
                closing.result()
            assert all(len(one.result()["predictions"]) == 20 for one in asked)


def refused(port):
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        client.connect()
    except OSError:
        return True
    client.close()
    return False


class TestPages:
    def test_models(self, several):
        digits, colours, numbers = Client(several).ask("GET", "/models")["models"]
        assert digits["name"] == "digits"
        assert digits["input_shape"] == [1, 28, 28]
        assert digits["classes"][7] == "seven"
        assert digits["trained_on"]["white"] == 1
        assert digits["takes_files"]
        assert colours["classes"] == ["0", "1", "2"]
        assert not numbers["takes_files"]
        assert numbers["outputs"] == 2

    def test_metrics(self, several, images):
        from prometheus_client.parser import text_string_to_metric_families

        client = Client(several)
        asked = {"model": "digits", "status": "200"}
        before = client.metric("fullback_requests_total", **asked)
        seen = client.metric("fullback_images_total", model="digits")
        client.post({"pixels": images[:3].tolist()}, "/predict/digits")
        client.post({"pixels": []}, "/predict/digits", status=400)
        client.post({"pixels": []}, "/predict/" + "x" * 100, status=404)
        assert client.metric("fullback_requests_total", **asked) == before + 1
        assert client.metric("fullback_images_total", model="digits") == seen + 3
        assert client.metric("fullback_requests_total", model="", status="404") >= 1
        text = client.ask("GET", "/metrics")
        names = {family.name for family in text_string_to_metric_families(text)}
        assert {
            "fullback_requests",
            "fullback_images",
            "fullback_request_seconds",
            "fullback_block_images",
            "fullback_waiting_images",
            "fullback_connections",
        } <= names
        assert "xxxx" not in text

    def test_health(self, client):
        assert client.ask("GET", "/health") == {"status": "ok"}

    def test_the_description(self, several):
        given = Client(several).ask("GET", "/openapi.json")
        assert given["openapi"] == "3.1.0"
        assert list(given["paths"]) == [
            "/predict/digits", "/predict/colours", "/predict/numbers",
            "/models", "/health", "/metrics", "/openapi.json",
        ]  # fmt: skip
        content = given["paths"]["/predict/numbers"]["post"]["requestBody"]["content"]
        assert list(content) == ["application/json"]


class TestLaunch:
    def test_names(self, folder):
        path = str(folder / "digits.safetensors")
        for name in ("", "a/b", "a b", "-a", "x" * 65, "é"):
            with pytest.raises(OptionError, match="a model's name must be letters"):
                service([(name, path)], port=0)
        with pytest.raises(OptionError, match="two models are called a"):
            service([("a", path), ("a", path)], port=0)

    def test_a_port_that_is_taken(self, server, folder):
        named = [("a", str(folder / "digits.safetensors"))]
        with pytest.raises(OptionError, match=f"cannot listen at 127.0.0.1, port {server.port}"):
            service(named, port=server.port)

    def test_models_that_cannot_be_served(self, folder, tmp_path):
        with pytest.raises(ModelFileError):
            service([("a", str(tmp_path / "a.safetensors"))], port=0)
        network = fb.load(folder / "digits.safetensors")
        network.parameters["conv2.weight"] = np.full((1, 1, 3, 3), np.nan)
        fb.save(network, tmp_path / "nan.safetensors")
        with pytest.raises(InputError, match="not finite"):
            service([("a", str(tmp_path / "nan.safetensors"))], port=0)

    def test_without_the_extra(self, folder, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(OptionError, match=r"uvicorn; pip install 'fullback\[serve\]'"):
            service([("a", str(folder / "digits.safetensors"))], port=0)

    def test_limits_go_together(self):
        """The largest request that is not too many images is not too large either."""
        assert reading.MOST_IMAGES * 28 * 28 * len("255, ") < reading.MOST_JSON_BYTES
