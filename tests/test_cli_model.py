"""eval and predict: what a saved network says about data sets and about image files."""

import re

import numpy as np
import pytest
from PIL import Image

import fullback as fb
from fullback.data.mnist import SHA256
from support.command import done, run
from support.files import REAL, idx_bytes

pytestmark = pytest.mark.filterwarnings("ignore::fullback.errors.DeadUnitWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def model(folder):
    """The network of the question, trained for a moment on the digits."""
    net, data = fb.zoo.question(seed=3), fb.load_data("digits")
    fb.fit(net, data.x_train, data.y_train, epochs=2, verbose=False)
    fb.save(net, folder / "model.safetensors")
    return folder / "model.safetensors"


@pytest.fixture(scope="module")
def digits(folder):
    """Five test images as files, and as they are."""
    x = fb.load_data("digits").x_test[:5]
    files = [folder / f"{i}.png" for i in range(5)]
    for file, image in zip(files, x, strict=True):
        Image.fromarray(image[0]).save(file)
    return files, x


class TestEval:
    @pytest.mark.parametrize("columns", [80, 120])
    def test_pictures_of_any_width_are_whole(self, columns, tmp_path):
        x = np.zeros((20, 3, 40, 70), np.uint8)
        x[:, :, :, ::2], x[:, :, :20] = 200, 90
        np.savez(tmp_path / "x.npz", x=x, y=np.arange(20) % 2)
        fb.save(fb.Network.parse("flatten dense2", (3, 40, 70)), tmp_path / "m.safetensors")
        page = done(
            "eval", tmp_path / "m.safetensors", "--data", tmp_path / "x.npz", columns=columns
        ).out
        lines = page.partition("most wrong about")[2].partition("precision")[0].splitlines()
        assert max(map(len, lines)) <= columns
        picture = [
            line.split("   ")[0]
            for line in lines
            if line.strip() and set(line) <= set(" .:-=+*#%@")
        ]
        assert {len(line) for line in picture} == {23}

    @pytest.mark.parametrize("columns", [40, 80])
    def test_a_confusion_matrix_is_shown_whole_or_as_a_list(self, model, columns):
        page = done("eval", model, columns=columns).out
        assert ("label / predicted" in page) is (columns == 80)
        assert ("taken for   images" in page) is (columns == 40)
        tables = page.partition("most wrong about")[0]
        assert max(map(len, tables.splitlines()[3:])) <= columns

    def test_real_mnist(self, tmp_path):
        """A part of MNIST in IDX form is learned within seconds, and tested by eval."""
        if not REAL.is_dir():
            pytest.skip("the MNIST files are not at hand")
        data = fb.load_data("mnist", REAL)
        parts = (
            data.x_train[:2000, 0],
            data.y_train[:2000],
            data.x_test[:400, 0],
            data.y_test[:400],
        )
        for name, part in zip(SHA256, parts, strict=True):
            (tmp_path / name).write_bytes(idx_bytes(part.astype(np.uint8)))
        source = ["--data", "mnist", "--data-dir", tmp_path, "--json"]
        out = tmp_path / "m.safetensors"
        ran = done("train", *source, "--epochs", 5, "--seed", 1, "--out", out)
        assert ran.events[0]["training_images"] == 2000
        assert ran.result["test_accuracy"] > 0.7
        assert done("eval", out, *source).result["test_accuracy"] == ran.result["test_accuracy"]


class TestPredict:
    def test_labels_and_probabilities(self, model, digits):
        files, x = digits
        events = done("predict", *files, "--model", model, "--json").events
        p = fb.load(model).predict_proba(x)
        assert [e["image"] for e in events] == [*map(str, files)]
        assert [e["label"] for e in events] == p.argmax(axis=1).tolist()
        np.testing.assert_allclose([e["probabilities"] for e in events], p, rtol=0, atol=1e-6)
        assert {tuple(e) for e in events} == {("event", "image", "label", "name", "probabilities")}

    def test_page(self, model, digits):
        files, x = digits
        page = done("predict", *files, "--model", model, columns=200).out
        assert f"model      {model}, for images of 1 x 28 x 28" in page
        for file, p in zip(files, fb.load(model).predict_proba(x), strict=True):
            (row,) = (line for line in page.splitlines() if str(file) in line)
            assert re.search(rf"{file} +{p.argmax()} +{p.max():.1%} .* L 28x28", row)

    def test_invert(self, model, digits, folder):
        files, x = digits
        Image.fromarray(255 - x[0, 0]).save(folder / "ink.png")
        as_is, inverted = (
            done("predict", folder / "ink.png", "--model", model, "--json", *option).events[0]
            for option in ([], ["--invert"])
        )
        (light,) = done("predict", files[0], "--model", model, "--json").events
        assert inverted["probabilities"] == light["probabilities"] != as_is["probabilities"]

    def test_the_others_are_read_where_one_cannot_be(self, model, digits, folder):
        files, _ = digits
        (folder / "text.png").write_text("no image")
        ran = run(
            "predict", files[0], folder / "text.png", "nowhere.png", files[1], "--model", model
        )
        assert ran.code == 1
        assert len(ran.err.splitlines()) == 2
        assert "text.png: is not an image of a known format" in ran.err
        assert "error: nowhere.png: no such file" in ran.err
        assert len(re.findall(r"\d\.png", ran.out)) == 2

    def test_brackets_in_a_name_are_no_markup(self, model, digits, folder):
        files, _ = digits
        odd = folder / "[red]x[" / "bold].png"
        odd.parent.mkdir()
        odd.write_bytes(files[0].read_bytes())
        assert str(odd) in done("predict", odd, "--model", model, columns=300).out

    def test_weights_that_are_not_finite(self, model, digits, folder):
        net = fb.load(model)
        net.parameters["dense2.bias"] = np.full(10, np.nan)
        fb.save(net, folder / "nan.safetensors")
        files, _ = digits
        for command in (("predict", files[0], "--model"), ("eval",)):
            ran = run(*command, folder / "nan.safetensors", "--json")
            assert (ran.code, ran.out) == (1, "")
            assert ran.err.startswith("error: dense2 is the first whose output is not finite")
