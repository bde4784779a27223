"""fullback explain: the page it writes and what it says, and what notebooks show."""

import json
import re

import numpy as np
import pytest
from PIL import Image

import fullback as fb
from support.command import run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model, and an image for it."""
    d = tmp_path_factory.mktemp("explain")
    fb.save(fb.Network.parse("conv2 relu pool flatten dense3", (1, 8, 8), seed=0), d / "model")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    Image.fromarray(pixels).save(d / "a digit.png")
    return d


def shown(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="document">(.*?)</script>', text, re.DOTALL)[1])


def test_a_page(folder):
    out = folder / "page.html"
    image, model = folder / "a digit.png", folder / "model"
    ran = run("explain", image, "--model", model, "--label", 2, "-o", out, columns=200)
    assert (ran.code, ran.err) == (0, "")
    assert "open it in a browser" in ran.out
    assert shown(out)["label"] == 2
    assert "<title>The backward pass of a digit.png</title>" in out.read_text(encoding="utf-8")


def test_without_a_label_it_is_what_the_model_says(folder):
    out = folder / "predicted.html"
    image, model = folder / "a digit.png", folder / "model"
    pixels = np.asarray(Image.open(image))[None]
    p = fb.load(model).predict_proba(pixels[None])[0]
    ran = run("explain", image, "--model", model, "--out", out, "--json")
    assert ran.result == {
        "event": "result",
        "image": str(image),
        "model": str(model),
        "label": int(p.argmax()),
        "name": str(p.argmax()),
        "predicted": int(p.argmax()),
        "predicted_name": str(p.argmax()),
        "probability": pytest.approx(float(p.max())),
        "out": str(out),
        "bytes": out.stat().st_size,
    }
    assert shown(out)["label"] == int(p.argmax())
    inverted = folder / "inverted.html"
    run("explain", image, "--model", model, "--out", inverted, "--invert", "--json")
    assert shown(inverted)["input"] != shown(out)["input"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere.png"], 1, "nowhere.png: no such file"),
        (["a digit.png", "--label", "3"], 2, "unknown class '3'; the model knows 0, 1, 2"),
        (["a digit.png", "--out", "nowhere/page.html"], 1, "does not exist"),
        (["a digit.png", "--model", "nothing"], 1, "nothing"),
        (["a digit.png", "--label", "-1"], 2, "--label"),
    ],
)
def test_what_goes_wrong(folder, monkeypatch, arguments, code, message):
    monkeypatch.chdir(folder)
    if "--model" not in arguments:
        arguments = [*arguments, "--model", "model"]
    ran = run("explain", *arguments)
    assert ran.code == code
    assert message in ran.err


class TestNotebooks:
    def test_a_network(self):
        net = fb.zoo.small(seed=0)
        net.freeze("conv1")
        text = net._repr_html_()
        assert text.count("<tr>") == len(net.names) + 3
        assert "Conv2D(8) frozen" in text
        assert "52,138" in text

    @pytest.mark.parametrize("value", [0.5, np.inf])
    def test_a_trace(self, value):
        net = fb.Network.parse("conv6 relu pool flatten dense14 relu dense3", (1, 8, 8), seed=0)
        net.parameters["conv1.bias"] = [value] * 6
        with np.errstate(all="ignore"):
            text = net.trace(np.ones((2, 1, 8, 8), np.float32), [0, 1])._repr_html_()
        assert text.count("data:image/png;base64,") == 2 * (1 + 3 * 4 + 4)
        assert text.count(" +2 ") == 6
        assert "of 2 images, the first is shown" in text
        assert all(f"<b>{name}</b>" in text for name in (*net.names, *net.parameters))


def test_an_image_is_read_as_the_model_s_were(tmp_path):
    """A model that was trained on padded images is shown a padded one."""
    from PIL import Image

    import fullback as fb
    from fullback.predicting import load_image_for

    Image.new("L", (8, 4), 200).save(tmp_path / "wide.png")
    net = fb.Network.parse("flatten dense2", (1, 4, 4))
    assert load_image_for(net, tmp_path / "wide.png", invert=False).pixels.min() == 200
    net.data_options = {"resize": "pad"}
    assert load_image_for(net, tmp_path / "wide.png", invert=False).pixels.min() == 0
