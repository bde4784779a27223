"""fullback data: what it counts, what it finds suspicious, the contact sheet."""

import json

import numpy as np
import pytest
from PIL import Image

from fullback.data import Dataset
from fullback.data.describe import contact_sheet, describe
from support.command import run

RNG = np.random.default_rng(0)


def data_set(**changed):
    x = RNG.integers(0, 256, (40, 1, 6, 5), dtype=np.uint8)
    y = np.arange(40) % 4
    parts = {"x_train": x[:30], "y_train": y[:30], "x_test": x[30:], "y_test": y[30:]}
    return Dataset("toy", **{**parts, **changed})


def test_nothing_suspicious():
    data = data_set()
    found = describe(data)
    assert not found.suspicious
    assert found.train.counts.tolist() == [8, 8, 7, 7]
    assert found.test.counts.sum() == 10
    assert found.train.low == data.x_train.min()
    assert found.train.high == data.x_train.max()
    assert found.train.mean == pytest.approx(data.x_train.mean())


def test_what_is_suspicious(monkeypatch):
    monkeypatch.setattr("fullback.data.describe.AT_ONCE", 100)  # in several parts
    data = data_set()
    x_train, x_test = data.x_train.copy(), data.x_test.copy()
    x_train[3] = 7
    x_train[20] = x_train[0]  # both of class 0
    x_train[21] = x_train[0]
    x_test[5] = x_train[11]
    found = describe(data_set(x_train=x_train, x_test=x_test))
    assert found.train.blank == [3]
    assert found.train.repeated == [20, 21]
    assert found.train.contradicted == [21]
    assert found.shared == [5]
    assert found.test.repeated == []
    assert found.suspicious


def test_a_class_without_images():
    found = describe(data_set(class_names=tuple("abcde")))
    assert found.train.counts.tolist() == [8, 8, 7, 7, 0]
    assert found.suspicious


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_contact_sheet(dtype, channels):
    x = RNG.integers(0, 256, (30, channels, 6, 5), dtype=np.uint8)
    given = x if dtype == "uint8" else (x / 255).astype(dtype)
    data = data_set(x_train=given, x_test=given[:10])
    sheet = contact_sheet(data, across=8)
    assert sheet.shape == (4 * 8, 8 * 7, 3)
    assert sheet.dtype == np.uint8
    shown = np.broadcast_to(x[4], (3, 6, 5)).transpose(1, 2, 0)  # the second of class 0
    assert abs(sheet[1:7, 8:13].astype(int) - shown).max() <= 2


def test_the_command(tmp_path):
    data = data_set()
    x = data.x_train.copy()
    x[5] = x[1]
    np.savez(
        tmp_path / "toy.npz",
        x_train=x, y_train=data.y_train, x_test=data.x_test, y_test=data.y_test,
    )  # fmt: skip
    done = run("data", tmp_path / "toy.npz", "--sheet", tmp_path / "sheet.png")
    assert (done.code, done.err) == (0, "")
    assert "1 training images that another one equals: 5" in done.out
    assert max(map(len, done.out.splitlines())) <= 80 + len(str(tmp_path))
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.size == (20 * 7, 4 * 8)
    done = run("data", tmp_path / "toy.npz", "--json")
    (event,) = [json.loads(line) for line in done.out.splitlines()]
    assert event["event"] == "data"
    assert event["train_counts"] == [8, 8, 7, 7]
    assert event["repeated"] == {"train": [5], "test": []}
    assert event["image_shape"] == [1, 6, 5]


def test_names_of_classes_are_only_shown(tmp_path):
    """A folder may be called anything, also what a terminal or Rich would take for an order."""
    for name in ("[red]a", "b[bold]"):
        for n in range(6):
            path = tmp_path / "pets" / name / f"{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(RNG.integers(0, 256, (5, 6), dtype=np.uint8)).save(path)
    done = run("data", tmp_path / "pets")
    assert done.code == 0
    assert "[red]a" in done.out
    done = run(
        "train", "--data", tmp_path / "pets", "--net", "flatten dense2", "--epochs", 1,
        "--out", tmp_path / "m.safetensors",
    )  # fmt: skip
    assert done.code == 0
    assert "[red]a" in done.out
    assert "b[bold]" in done.out


def test_numbers_in_place_of_classes(tmp_path):
    x = RNG.integers(0, 256, (40, 6, 5), dtype=np.uint8)
    np.savez(tmp_path / "toy.npz", x=x, y=np.arange(40) / 8)
    path = tmp_path / "sheet.png"
    done = run("data", tmp_path / "toy.npz", "--regression", "--sheet", path)
    assert (done.code, done.err) == (0, "")
    assert "32 images, with numbers from 0" in done.out
    with Image.open(path) as image:
        assert image.size == (20 * 7, 10 * 8)


def test_what_is_refused(tmp_path):
    done = run("data", tmp_path / "nothing")
    assert done.code == 1
    assert "unknown data set" in done.err
    done = run("data", "--image-size", "large")
    assert done.code == 2
    for command, option in (("data", "--sheet"), ("rate", "--plot")):
        done = run(command, option, tmp_path / "picture.jpg")
        assert done.code == 2
        assert f"{option} writes a PNG file; call it {tmp_path / 'picture.png'}" in done.err
        assert not list(tmp_path.iterdir())
    done = run("data", "--sheet", tmp_path / "no" / "sheet.png")
    assert done.code == 1
    assert "does not exist" in done.err
