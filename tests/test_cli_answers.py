"""predict on folders, arrays and tables; thresholds of eval; what explain picks; hints."""

import csv
import os
import re
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

import fullback as fb
from fullback.cli.models import labels_by_name, labels_from, name_classes
from fullback.cli.output import FAILURE, NO_MEMORY, USAGE, one_line_errors
from fullback.metrics import choose_threshold, curves, measure
from fullback.pixels import record_of
from fullback.predicting import answers, looks_inverted
from support.command import command, done, environment, posix, run

pytestmark = pytest.mark.filterwarnings("ignore::fullback.errors.DeadUnitWarning")

RNG = np.random.default_rng(0)
SHAPES = {"defect": 200, "good": 60}  # grey values, and labels 0 and 1


def image_of(kind, rng=RNG):
    """A dark image with a bright square on it, of either brightness."""
    x = rng.normal(30, 12, (12, 12))
    x[3:9, 3:9] += SHAPES[kind] + rng.normal(0, 45)
    return x.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of defects with a part for validation, and a model that tells them apart."""
    d = tmp_path_factory.mktemp("answers")
    for part, good, defects in (("train", 120, 30), ("val", 90, 30), ("test", 90, 30)):
        for kind, count in (("good", good), ("defect", defects)):
            (d / "parts" / part / kind).mkdir(parents=True)
            for n in range(count):
                Image.fromarray(image_of(kind)).save(d / "parts" / part / kind / f"{n}.png")
    data = fb.load_data(d / "parts")
    net = fb.Network.parse("conv2 relu pool flatten dense2", (1, 12, 12), seed=1)
    fb.fit(net, data.x_train, data.y_train, epochs=3, batch_size=16, verbose=False)
    net.class_names = data.class_names
    fb.save(net, d / "m.safetensors")
    return d


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


class TestPredict:
    def test_a_folder_into_a_table(self, folder, tmp_path):
        test = folder / "parts" / "test"
        (tmp_path / "in").mkdir()
        for kind in SHAPES:
            (tmp_path / "in" / kind).mkdir()
            for n in range(15):
                name = f"{kind}/{n}.png"
                (tmp_path / "in" / name).write_bytes((test / name).read_bytes())
        out = tmp_path / "answers.csv"
        page = done(
            "predict", folder / "m.safetensors", tmp_path / "in", "--out", out, "--probabilities"
        ).out
        assert f"written    {out}, 30 rows" in page
        rows = rows_of(out)
        assert list(rows[0]) == ["file", "label", "probability", "defect", "good"]
        assert [row["file"] for row in rows] == sorted(row["file"] for row in rows)
        net = fb.load(folder / "m.safetensors")
        for row in rows:
            p = net.predict_proba(np.asarray(Image.open(row["file"]))[None, None])[0]
            assert row["label"] == net.class_names[p.argmax()]
            assert float(row["probability"]) == pytest.approx(p.max(), rel=1e-5)
            assert float(row["defect"]) == pytest.approx(p[0], rel=1e-5)

    def test_arrays_with_labels(self, folder, tmp_path):
        data = fb.load_data(folder / "parts")
        np.savez(tmp_path / "t.npz", x=data.x_test, y=data.y_test)
        np.save(tmp_path / "t.npy", data.x_test[:, 0])
        model = folder / "m.safetensors"
        page = " ".join(done("predict", model, tmp_path / "t.npz").out.split())
        assert "labels are not compared, as the model knows no class '0'; say what 0, 1, 2," in page
        names = ("--class-names", "defect, good")
        page = done("predict", model, tmp_path / "t.npz", *names).out
        share = fb.load(model).score(data.x_test, data.y_test)
        assert f"labels     {share:.2%} of 120 answers are those of the data's labels" in page
        a, b = (
            done("predict", model, tmp_path / f"t.{n}", "--json").events for n in ("npz", "npy")
        )
        assert a == b
        assert [event["image"] for event in a] == [*map(str, range(120))]

    def test_parquet_and_idx_folders_are_refused_in_one_line(self, folder, tmp_path):
        (tmp_path / "a.parquet").write_bytes(b"PAR1")
        (tmp_path / "idx").mkdir()
        (tmp_path / "idx" / "t10k-images-idx3-ubyte").write_bytes(b"")
        for source, words in (
            (tmp_path / "a.parquet", "fullback eval --data tests on"),
            (tmp_path, "fullback eval --data tests on"),
            (tmp_path / "idx", "give one with images, such as"),
        ):
            ran = run("predict", folder / "m.safetensors", source)
            assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
            assert words in ran.err

    def test_kaggle(self, folder, tmp_path):
        data = fb.load_data(folder / "parts")
        model, out = folder / "m.safetensors", tmp_path / "out.csv"
        answers = [data.class_names[k] for k in fb.load(model).predict(data.x_test[:7])]
        table = tmp_path / "test.csv"
        for ids in ([*range(501, 508)], None):
            with table.open("w", encoding="utf-8") as file:
                pixels = ",".join(f"pixel{n}" for n in range(144))
                file.write(("id," if ids else "") + pixels + "\n")
                for n, x in enumerate(data.x_test[:7]):
                    own = [ids[n]] if ids else []
                    file.write(",".join(map(str, [*own, *x.ravel()])) + "\n")
            done("predict", model, table, "--out", out, "--kaggle")
            wanted = [str(n) for n in ids or range(1, 8)]
            assert rows_of(out) == [
                {"ImageId": own, "Label": label} for own, label in zip(wanted, answers, strict=True)
            ]
        np.save(tmp_path / "x.npy", data.x_test)
        ran = run("predict", model, table, tmp_path / "x.npy", "--out", out, "--kaggle")
        assert (ran.code, ran.out) == (1, "")
        assert "2 images have the id '1'" in ran.err

    def test_a_file_that_cannot_be_read_has_a_row_without_an_answer(self, folder, tmp_path):
        good = tmp_path / "in" / "a.png"
        good.parent.mkdir()
        Image.fromarray(image_of("good")).save(good)
        (tmp_path / "in" / "b.png").write_text("no image")
        out = tmp_path / "answers.csv"
        ran = run("predict", folder / "m.safetensors", tmp_path / "in", "--out", out)
        assert ran.code == 1
        assert ran.err.count("\n") == 1
        assert [(row["file"], row["label"]) for row in rows_of(out)] == [
            (str(good), "good"),
            (str(tmp_path / "in" / "b.png"), ""),
        ]

    def test_batches_answer_as_one_image_does(self, folder, tmp_path, monkeypatch):
        data = fb.load_data(folder / "parts")
        np.save(tmp_path / "x.npy", data.x_test)
        model = folder / "m.safetensors"
        calls = []
        monkeypatch.setattr(
            "fullback.cli.prediction.answers",
            lambda net, x: calls.append(len(x)) or answers(net, x),
        )
        at_once = done("predict", model, tmp_path / "x.npy", "--json").events
        assert calls == [120]
        monkeypatch.setattr("fullback.cli.prediction.AT_ONCE", 7)
        assert done("predict", model, tmp_path / "x.npy", "--json").events == at_once

    def test_a_16_bit_image_among_others(self, folder, tmp_path):
        """Its floats must not be stacked with bytes."""
        x = image_of("defect")
        Image.fromarray(x).save(tmp_path / "a.png")
        Image.fromarray(x.astype(np.uint16) * 257).save(tmp_path / "b.png")
        events = done("predict", folder / "m.safetensors", tmp_path, "--json").events
        first, second = (event["probabilities"] for event in events)
        np.testing.assert_allclose(first, second, atol=1e-5)

    def test_a_model_of_floats_up_to_255(self, folder, tmp_path):
        """Images in files are brought to the scale of training."""
        data = fb.load_data(folder / "parts")
        net = fb.Network.parse("normalize conv2 relu pool flatten dense2", (1, 12, 12), seed=1)
        x = data.x_train.astype(np.float32)
        with pytest.warns(fb.FullbackWarning, match="whose white is 255"):
            fb.fit(net, x, data.y_train, epochs=5, batch_size=16, verbose=False)
        fb.save(net, tmp_path / "m.safetensors")
        events = done(
            "predict", tmp_path / "m.safetensors", folder / "parts" / "test", "--json"
        ).events
        wanted = net.predict_proba(data.x_test.astype(np.float32))
        order = [np.flatnonzero(data.y_test == k) for k in (0, 1)]
        found = np.array([event["label"] for event in events])
        assert np.bincount(found, minlength=2).tolist() == [
            int((wanted.argmax(axis=1) == k).sum()) for k in (0, 1)
        ]
        assert (found[: len(order[0])] == 0).mean() > 0.8

    def test_a_scale_that_is_not_known(self, folder, tmp_path):
        net = fb.Network.parse("flatten dense2", (1, 12, 12))
        x = RNG.normal(size=(64, 1, 12, 12))
        fb.fit(net, x, np.arange(64) % 2, epochs=1, verbose=False)
        net.class_names = ("defect", "good")
        fb.save(net, tmp_path / "m.safetensors")
        image = folder / "parts" / "test" / "good" / "0.png"
        for arguments in (
            ("predict", tmp_path / "m.safetensors", image),
            ("explain", tmp_path / "m.safetensors", image, "-o", tmp_path / "r.html"),
            ("eval", tmp_path / "m.safetensors", "--data", folder / "parts"),
        ):
            ran = run(*arguments)
            assert (ran.code, ran.out) == (1, "")
            assert ran.err.count("\n") == 1
            assert "black and white is not known" in ran.err

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["{d}/m.safetensors"], "no images are given"),
            (["{d}/m.safetensors", "x.png", "--model", "o.safetensors"], "give one model, not"),
            (["{d}/m.safetensors", "x.png", "--kaggle"], "--kaggle goes with --out FILE.csv"),
            (["{d}/m.safetensors", "x.png", "--probabilities"], "goes with --out FILE.csv"),
            (["{d}/m.safetensors", "x.png", "--out", "{d}/m.safetensors"], "--out writes a CSV"),
            (["x.png"], "no model is given, and there is no model.safetensors here"),
        ],
    )
    def test_wrong_usage(self, folder, tmp_path, monkeypatch, arguments, message):
        monkeypatch.chdir(tmp_path)
        ran = run("predict", *(a.replace("{d}", str(folder)) for a in arguments))
        assert ran.code == (1 if "no model" in message else 2)
        assert message in ran.err
        assert ran.out == ""

    @pytest.mark.parametrize("columns", [40, 55, 80, 200])
    def test_file_answer_and_probability_stay(self, folder, columns):
        image = folder / "parts" / "test" / "defect" / "3.png"
        page = done("predict", folder / "m.safetensors", image, columns=columns).out
        table = page.partition("\n")[2].splitlines()
        assert max(map(len, table)) <= columns
        (header,) = (line.split() for line in table if "probability" in line)
        assert header[:3] == ["file", "answer", "probability"]
        first = [line[: line.find(" ", 2)].strip() for line in table[3:] if line.strip()]
        assert "".join(first) == str(image)
        assert re.search(r" (defect|good) +\d+\.\d%", page)
        assert "…" not in page
        assert ("format" in header) is (columns >= 80)

    def test_where_no_terminal_limits_it_nothing_is_folded(self, folder, tmp_path):
        image = tmp_path / ("x" * 120 + ".png")
        Image.fromarray(image_of("good")).save(image)
        ran = subprocess.run(
            command("predict", folder / "m.safetensors", image),
            capture_output=True,
            text=True,
            env=environment(),
        )
        assert str(image) in ran.stdout


class TestInvert:
    def test_digits_and_photos(self):
        data = fb.load_data("digits")
        record = record_of(data.x_train, np.arange(len(data.x_train)))
        assert not looks_inverted(record, data.x_test).any()
        assert looks_inverted(record, 255 - data.x_test).all()
        paper = (165 - 0.4 * data.x_test).astype(np.uint8)  # grey ink on grey paper
        assert looks_inverted(record, paper).all()
        photos = RNG.integers(0, 256, (50, 3, 8, 8), dtype=np.uint8)
        record = record_of(photos, np.arange(50))
        assert not looks_inverted(record, photos).any()
        assert not looks_inverted(record, 255 - photos).any()
        assert not looks_inverted(None, photos).any()

    def test_the_hint_is_given_both_ways(self, folder, tmp_path):
        Image.fromarray(255 - image_of("defect")).save(tmp_path / "ink.png")
        Image.fromarray(image_of("defect")).save(tmp_path / "light.png")
        model = folder / "m.safetensors"
        assert done("predict", model, tmp_path / "light.png").err == ""
        assert done("predict", model, tmp_path / "ink.png", "--invert").err == ""
        err = done("predict", model, tmp_path / "ink.png").err
        assert "ink.png is dark on light, but the model was trained on images that are light" in err
        assert "try --invert" in err
        err = done("predict", model, tmp_path / "light.png", "--invert").err
        assert "leave --invert out" in err
        out = tmp_path / "r.html"
        assert "try --invert" in done("explain", model, tmp_path / "ink.png", "-o", out).err


class TestThreshold:
    LABELS = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    P = np.array([0.9, 0.8, 0.3, 0.2, 0.7, 0.25, 0.1, 0.08, 0.05, 0.01])

    def chosen(self, **aim):
        return choose_threshold(self.LABELS, np.stack([1 - self.P, self.P], axis=1), 1, **aim)

    def test_by_hand(self):
        assert self.chosen(recall=0.5).value == pytest.approx(0.75)  # 2 of 4, no false positive
        assert self.chosen(recall=0.75).value == pytest.approx(0.275)  # 3 of 4, one
        assert self.chosen(recall=0.76).value == pytest.approx(0.15)  # 4 of 4, two
        assert self.chosen(cost=(1, 1)).value == pytest.approx(0.75)  # 2 missed: 2
        assert self.chosen(cost=(1, 5)).value == pytest.approx(0.15)  # 2 false: 2

    @pytest.mark.parametrize(
        ("aim", "error", "message"),
        [
            ({}, fb.OptionError, "give one of them"),
            ({"recall": 1.1}, fb.OptionError, "recall must be"),
            ({"cost": (0, 1)}, fb.OptionError, "cost of a false positive"),
            ({"cost": (1e-9, 1e9)}, None, ""),
        ],
    )
    def test_aims(self, aim, error, message):
        if error is None:
            assert self.chosen(**aim).value == pytest.approx(0.15)
            return
        with pytest.raises(error, match=message):
            self.chosen(**aim)

    def test_always_the_same_answer_is_refused(self):
        labels, p = 1 - self.LABELS, np.stack([1 - self.P, self.P], axis=1)
        with pytest.raises(fb.InputError, match="to no image"):
            choose_threshold(labels, p, 1, cost=(1, 0.01))
        p = np.full((10, 2), 0.5)
        with pytest.raises(fb.InputError, match="to every image"):
            choose_threshold(self.LABELS, p, 1, recall=0.9)
        with pytest.raises(fb.InputError, match="there are 0 images of class 1"):
            choose_threshold(np.zeros(10, int), p, 1, recall=0.9)

    def test_the_network_applies_it_everywhere(self, tmp_path):
        net = fb.Network.parse("flatten dense3", (1, 4, 4), seed=0)
        x = RNG.random((50, 1, 4, 4)).astype(np.float32) * 5
        p, y = net.predict_proba(x), RNG.integers(0, 3, 50)
        least = (p.argmax(axis=1) == np.arange(3)[:, None]).sum(axis=1).argmin()
        value = float(np.median(p[:, least])) * 0.999
        net.threshold = fb.Threshold(least, value)
        others = p.copy()
        others[:, least] = 0
        wanted = np.where(p[:, least] >= value, least, others.argmax(axis=1))
        assert (net.predict(x) == wanted).all()
        assert (wanted != p.argmax(axis=1)).any()
        assert net.score(x, y) == (wanted == y).mean()
        fb.save(net, tmp_path / "m.safetensors")
        same = fb.load(tmp_path / "m.safetensors")
        assert same.threshold == net.threshold == net.copy().threshold
        assert measure(y, p, threshold=net.threshold).accuracy == net.score(x, y)
        fb.fit(net, x, y, epochs=1, batch_size=10, verbose=False)
        assert net.threshold is None  # it was chosen for other weights

    @pytest.mark.parametrize("wrong", [0.5, fb.Threshold(3, 0.5)])
    def test_no_threshold_of_the_network(self, wrong):
        net = fb.Network.parse("flatten dense3", (1, 4, 4))
        with pytest.raises(fb.OptionError, match=r"Threshold\("):
            net.threshold = wrong

    @pytest.mark.parametrize("options", [(-1, 0.5), (0, 0.0), (0, 1.0), (0, "x"), (0.5, 0.5)])
    def test_no_threshold(self, options):
        with pytest.raises(fb.OptionError):
            fb.Threshold(*options)

    def test_a_model_file_with_a_wrong_one(self, tmp_path):
        net = fb.Network.parse("flatten dense3", (1, 4, 4))
        net.threshold = fb.Threshold(2, 0.25)
        fb.save(net, tmp_path / "m.safetensors")
        content = (tmp_path / "m.safetensors").read_bytes()
        (tmp_path / "m.safetensors").write_bytes(content.replace(b": 0.25", b": 1.25"))
        with pytest.raises(fb.ModelFileError, match="a threshold must be"):
            fb.load(tmp_path / "m.safetensors")

    def test_eval_chooses_on_validation_images_and_stores(self, folder, tmp_path):
        model = tmp_path / "m.safetensors"
        model.write_bytes((folder / "m.safetensors").read_bytes())
        data = fb.load_data(folder / "parts")
        options = ["--data", folder / "parts", "--positive", "defect", "--recall", 0.9]
        ran = done("eval", model, *options, "--store", columns=200)
        assert ran.err == ""
        assert "on, chosen on 120 validation images for a recall of 90.00%" in ran.out
        assert "stored     the threshold" in ran.out
        net = fb.load(model)
        assert net.threshold.label == 0
        recall = (net.predict(data.x_val)[data.y_val == 0] == 0).mean()
        assert recall >= 0.9
        (result,) = done("eval", model, "--data", folder / "parts", "--json").events
        assert result["threshold"] == {
            "label": 0,
            "name": "defect",
            "value": net.threshold.value,
            "chosen_on": None,
            "stored": True,
        }
        assert result["test_accuracy"] == net.score(data.x_test, data.y_test)
        test = folder / "parts" / "test"
        answers = done("predict", model, test, "--json").events
        assert [event["label"] for event in answers].count(0) == int(
            (net.predict(data.x_test) == 0).sum()
        )
        assert "defect is answered from" in done("predict", model, test).out

    def test_eval_warns_of_the_images_it_chose_on(self, folder):
        options = ["--data", folder / "parts", "--cost", "1:20", "--positive", "0"]
        err = done("eval", folder / "m.safetensors", *options, "--choose-on", "test").err
        assert "on the test images, so that their figures at it are too good" in err
        assert fb.load(folder / "m.safetensors").threshold is None
        np.savez(folder / "no_val.npz", x=RNG.random((60, 12, 12)), y=np.arange(60) % 2)
        options[1] = folder / "no_val.npz"
        err = run("eval", folder / "m.safetensors", *options, "--choose-on", "val").err
        assert "has no images for validation" in err

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--recall", "0.9", "--cost", "1:2"], "leave one out"),
            (["--positive", "defect"], "--positive goes with --recall or --cost"),
            (["--recall", "0"], "--recall must be a share"),
            (["--cost", "1"], "--cost must be like 1:20"),
            (
                ["--positive", "bird", "--recall", "0.9"],
                "unknown class 'bird'; .* defect, good",
            ),
            (["--store"], "a threshold is chosen for an aim"),
        ],
    )
    def test_wrong_usage(self, folder, options, message):
        ran = run("eval", folder / "m.safetensors", "--data", folder / "parts", *options)
        assert (ran.code, ran.out) == (2, "")
        assert re.search(message, ran.err)


def test_a_threshold_stored_in_an_estimator_s_file(folder, tmp_path):
    """The file stays an estimator's, and its answers are those of eval."""
    data = fb.load_data(folder / "parts")
    names = np.array(data.class_names)
    model = fb.CNNClassifier("conv2 relu pool flatten", epochs=2, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(data.x_train, names[data.y_train])
    path = tmp_path / "m.safetensors"
    model.save(path)
    options = ("--positive", "defect", "--recall", "1", "--store")
    (event,) = done("eval", path, "--data", folder / "parts", *options, "--json").events
    read = fb.load_estimator(path)
    assert read.network_.threshold.value == event["threshold"]["value"]
    assert read.score(data.x_test, names[data.y_test]) == event["test_accuracy"]
    wanted = names[fb.load(path).predict(data.x_test)]
    assert read.predict(data.x_test).tolist() == wanted.tolist()
    assert (wanted != model.predict(data.x_test)).any()


class TestNumbers:
    """A model that answers in numbers."""

    def test_eval_and_predict(self, tmp_path):
        x = RNG.integers(0, 256, (50, 6, 6), dtype=np.uint8)
        y = RNG.normal(100, 20, (50, 2)).astype(np.float32)
        np.savez(tmp_path / "x.npz", x=x, y=y)
        net = fb.Network.parse("flatten dense2", (1, 6, 6), loss=fb.MeanSquaredError())
        fb.save(net, tmp_path / "m.safetensors")
        model, out = tmp_path / "m.safetensors", tmp_path / "out.csv"
        (result,) = done("eval", model, "--data", tmp_path / "x.npz", "--json").events
        data = fb.load_data(tmp_path / "x.npz", numbers=True)
        assert result["test_r2"] == pytest.approx(net.score(data.x_test, data.y_test))
        assert "R² " in done("eval", model, "--data", tmp_path / "x.npz").out
        done("predict", model, tmp_path / "x.npz", "--out", out)
        rows = rows_of(out)
        given = [[float(row["value 0"]), float(row["value 1"])] for row in rows]
        np.testing.assert_allclose(given, net.predict(x[:, None]), rtol=1e-6)
        events = done("predict", model, tmp_path / "x.npz", "--json").events
        np.testing.assert_allclose([event["values"] for event in events], given, rtol=1e-6)
        ran = run("predict", model, tmp_path / "x.npz", "--out", out, "--kaggle")
        assert "Label is one number, but the model answers 2" in ran.err
        ran = run("eval", model, "--data", tmp_path / "x.npz", "--recall", "0.9")
        assert ran.code == 2
        assert "it has no threshold" in ran.err


class TestCurves:
    def test_against_scikit_learn(self):
        from sklearn import metrics

        y = np.r_[RNG.integers(0, 3, 200), 0, 1, 2]
        p = RNG.dirichlet([1, 1, 1, 1], 203)
        found = measure(y, p)
        assert np.isnan(found.auc[3])  # no image is of that class
        areas = [metrics.roc_auc_score(y == k, p[:, k]) for k in range(3)]
        np.testing.assert_allclose(found.auc[:3], areas)
        assert found.macro_auc == pytest.approx(np.mean(areas))
        precise = [metrics.average_precision_score(y == k, p[:, k]) for k in range(3)]
        np.testing.assert_allclose(found.average_precision[:3], precise)
        assert [curve.label for curve in curves(y, p)] == [0, 1, 2]

    @pytest.mark.parametrize("classes", [2, 4, 30])
    def test_pictures(self, classes):
        pytest.importorskip("matplotlib")
        from fullback import plots

        y, p = RNG.integers(0, classes, 300), RNG.dirichlet([1] * classes, 300)
        names = [f"class {k}" for k in range(classes)]
        for draw in (plots.roc, plots.precision_recall):
            (axes,) = draw(curves(y, p), names, measure(y, p)).axes
            assert len(axes.get_legend().get_texts()) == min(classes, 7)
        assert plots.roc([], names, measure(y, p)) is None


class TestClassNames:
    """A folder that lacks a class numbers those behind it differently."""

    NET = fb.Network.parse("flatten dense3", (1, 4, 4))
    NET.class_names = ("cat", "dog", "mouse")

    @pytest.mark.parametrize(
        ("names", "labels", "wanted"),
        [
            (("cat", "dog", "mouse"), [0, 1, 2], [0, 1, 2]),
            (("cat", "mouse"), [0, 1], [0, 2]),
            (("mouse", "dog", "cat", "bird"), [0, 1, 2], [2, 1, 0]),
            (("bird", "mouse"), [1, 1], [2, 2]),
        ],
    )
    def test_labels_go_by_name(self, names, labels, wanted):
        assert labels_by_name(self.NET, "it", names, np.array(labels)).tolist() == wanted

    def test_a_class_that_the_model_does_not_know(self):
        for names, labels in ((("bird", "mouse"), [0, 1]), (("cat", "dog", "mouse", "bird"), [3])):
            with pytest.raises(fb.InputError, match="images of class 'bird', but the model knows"):
                labels_by_name(self.NET, "it", names, np.array(labels))

    def test_numbers_say_nothing_about_the_order_of_names(self):
        """A model of 'eight', 'five', ... is not tested on the labels 0 to 9 by position."""
        with pytest.raises(fb.InputError, match="it has numbers for classes, and the model names"):
            labels_by_name(self.NET, "it", ("0", "1", "2"), np.array([0, 2]))
        names = name_classes(self.NET, "mouse, dog,cat")
        found = labels_by_name(self.NET, "it", ("0", "1", "2"), np.array([0, 2]), names)
        assert found.tolist() == [2, 0]

    def test_numbers_that_are_names(self):
        """Class folders 1, 2 and 3: label 1 is the first of them."""
        net = fb.Network.parse("flatten dense3", (1, 4, 4))
        net.class_names = ("1", "2", "3")
        names = ("0", "1", "2", "3")
        assert labels_by_name(net, "it", names, np.array([1, 3])).tolist() == [0, 2]
        assert labels_from(net, np.array([3, 1]))[0].tolist() == [2, 0]
        with pytest.raises(fb.InputError, match="images of class '0', but the model knows 1, 2, 3"):
            labels_by_name(net, "it", names, np.array([0]))

    def test_a_model_of_numbers_and_data_with_names(self):
        net = fb.Network.parse("flatten dense3", (1, 4, 4))
        net.class_names = ("0", "1", "2")
        with pytest.raises(fb.InputError, match="model has numbers for classes, 0 to 2; say what"):
            labels_by_name(net, "it", ("cat", "dog"), np.array([0, 1]))
        with pytest.raises(fb.OptionError, match="2 names, but the model 3 classes"):
            name_classes(net, "dog,cat")
        assert name_classes(net, "dog,bird,cat") == net.class_names
        assert labels_by_name(net, "it", ("cat", "dog"), np.array([0, 1])).tolist() == [2, 0]

    def test_a_model_without_names_says_which_order_it_takes(self, capsys):
        net = fb.Network.parse("flatten dense2", (1, 4, 4))
        assert labels_by_name(net, "it", ("0", "1"), np.array([1])).tolist() == [1]
        assert capsys.readouterr().err == ""
        assert labels_by_name(net, "it", ("cat", "dog"), np.array([1])).tolist() == [1]
        assert "in the order of the data's: 0 for cat, 1 for dog" in capsys.readouterr().err
        with pytest.raises(fb.InputError, match="class 'emu', number 2, but the model has 2"):
            labels_by_name(net, "it", ("cat", "dog", "emu"), np.array([2]))


@pytest.fixture(scope="module")
def regression(tmp_path_factory):
    d = tmp_path_factory.mktemp("numbers")
    rng = np.random.default_rng(4)
    x = rng.integers(0, 60, (200, 8, 8)).astype(np.uint8)
    y = rng.uniform(100, 250, 200)
    x[:, 2:6, 2:6] = y[:, None, None]
    np.savez(d / "d.npz", x=x, y=y)
    done(
        *("train", "--data", d / "d.npz", "--regression", "--net", "conv4 relu flatten dense1"),
        *("--epochs", 8, "--batch-size", 16, "--no-compare", "--out", d / "m.safetensors"),
    )
    return d, x, y


class TestTrainedOnNumbers:
    """A model of numbers through eval and predict, against what Python says."""

    def test_eval(self, regression):
        d, _, _ = regression
        net, data = fb.load(d / "m.safetensors"), fb.load_data(d / "d.npz", numbers=True)
        ran = done("eval", d / "m.safetensors", "--data", d / "d.npz", "--json")
        (event,) = ran.events
        assert event["test_r2"] == pytest.approx(net.score(data.x_test, data.y_test), abs=1e-5)
        assert event["test_r2"] > 0.9
        off = np.abs(net.predict(data.x_test)[:, 0] - data.y_test).mean()
        assert event["test_mean_absolute_error"] == [pytest.approx(off, rel=1e-5)]
        page = done("eval", d / "m.safetensors", "--data", d / "d.npz").out
        assert f"test       R² {event['test_r2']:.4f} on 40 images" in page
        ran = run("eval", d / "m.safetensors", "--data", d / "d.npz", "--recall", "0.5")
        assert ran.code == USAGE
        assert "answers in numbers, not in classes: it has no threshold" in ran.err

    def test_predict(self, regression, tmp_path):
        d, x, y = regression
        net, out = fb.load(d / "m.safetensors"), tmp_path / "out.csv"
        wanted = net.predict(x)[:, 0]
        Image.fromarray(x[3]).save(tmp_path / "3.png")
        (event,) = done("predict", d / "m.safetensors", tmp_path / "3.png", "--json").events
        assert event["values"] == [pytest.approx(wanted[3], rel=1e-5)]
        page = done("predict", d / "m.safetensors", d / "d.npz", "--out", out).out
        assert f"mean absolute error {np.abs(wanted - y).mean():.4g} on 200 images" in page
        assert [float(row["value"]) for row in rows_of(out)] == pytest.approx(wanted, rel=1e-5)
        done("predict", d / "m.safetensors", d / "d.npz", "--out", out, "--kaggle")
        assert float(rows_of(out)[7]["Label"]) == pytest.approx(wanted[7], rel=1e-5)
        assert f"{wanted[3]:.6g}" in done("predict", d / "m.safetensors", tmp_path / "3.png").out
        ran = run("predict", d / "m.safetensors", d / "d.npz", "--out", out, "--probabilities")
        assert ran.code == USAGE
        assert "answers in numbers, not in classes; leave --probabilities out" in ran.err
        np.savez(d / "two.npz", x=x, y=np.stack([y, y], 1))
        ran = run("eval", d / "m.safetensors", "--data", d / "two.npz")
        assert "two has 2 numbers for an image, but the model answers with 1" in ran.err
        ran = run("predict", d / "m.safetensors", d / "two.npz")
        assert ran.code == 0
        assert "labels" not in ran.out


class TestScale:
    def test_eval_reads_files_on_the_scale_of_training(self, folder, tmp_path):
        """16-bit files for a model of 0 to 255, and a table of dark pixels for one of 0 to 1."""
        data = fb.load_data(folder / "parts")
        net = fb.Network.parse("normalize conv2 relu pool flatten dense2", (1, 12, 12), seed=1)
        x = data.x_train.astype(np.float32)
        net.fit(x, data.y_train, epochs=3, batch_size=16, verbose=False, pixel_range=(0, 255))
        net.class_names = data.class_names
        net.save(tmp_path / "m.safetensors")
        for n, (image, label) in enumerate(zip(data.x_test, data.y_test, strict=True)):
            for part in ("train", "test"):
                where = tmp_path / "deep" / part / data.class_names[label]
                where.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image[0].astype(np.uint16) * 257).save(where / f"{n}.png")
        (event,) = done(
            "eval", tmp_path / "m.safetensors", "--data", tmp_path / "deep", "--json"
        ).events
        found = net.evaluate(data.x_test, data.y_test)
        assert event["test_accuracy"] == found.score
        assert event["test_loss"] == pytest.approx(found.loss, rel=1e-4)

        dark = data.x_test // 9
        rows = [
            [*image.ravel(), data.class_names[k]]
            for image, k in zip(dark, data.y_test, strict=True)
        ]
        with (tmp_path / "dark.csv").open("w", newline="") as file:
            csv.writer(file).writerows([[*(f"p{n}" for n in range(144)), "label"], *rows])
        own = fb.load(folder / "m.safetensors")
        (event,) = done(
            "eval", folder / "m.safetensors", "--data", tmp_path / "dark.csv", "--json"
        ).events
        test = fb.load_data(tmp_path / "dark.csv", trained_on=own.trained_on)
        assert test.x_test.dtype == np.uint8
        assert event["test_accuracy"] == own.score(test.x_test, test.y_test)

    def test_another_scale_is_told_once_and_is_not_ink_on_paper(self, folder, tmp_path):
        data = fb.load_data(folder / "parts")
        np.savez(tmp_path / "x.npz", x=data.x_test.astype(np.float32))
        ran = run("predict", folder / "m.safetensors", tmp_path / "x.npz", "--json")
        assert ran.code == 0
        assert ran.err.count("\n") == 1
        assert "bring them to the same scale" in ran.err


class TestExplain:
    def test_without_an_image_it_takes_a_wrong_one(self, folder, tmp_path):
        data, net = fb.load_data(folder / "parts"), fb.load(folder / "m.safetensors")
        y = data.y_test.copy()
        p = net.predict_proba(data.x_test)
        worst = p[np.arange(120), y].argmin()
        ran = done(
            *("explain", "--model", folder / "m.safetensors", "--data", folder / "parts"),
            *("--out", tmp_path / "r.html", "--json"),
        )
        assert ran.result["image"] == f"test image {worst} of parts"
        assert ran.result["label"] == y[worst]
        assert ran.result["name"] == data.class_names[y[worst]]

    def test_an_image_that_the_model_is_sure_of(self, folder, tmp_path):
        net = fb.load(folder / "m.safetensors")
        net.parameters["dense1.bias"] = [0, 100]
        fb.save(net, tmp_path / "sure.safetensors")
        image = folder / "parts" / "test" / "good" / "0.png"
        common = ("explain", tmp_path / "sure.safetensors", image, "-o", tmp_path / "r.html")
        err = done(*common).err
        assert "100.0000% sure of good, so that all deltas are almost 0" in err
        assert "--data NAME without an image" in err
        assert done(*common, "--label", "defect").err == ""
        assert '"classes": ["defect", "good"]' in (tmp_path / "r.html").read_text(encoding="utf-8")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "give an image file, or --data NAME"),
            (["a.png", "--data", "digits"], "not both"),
            (["a.png", "b.png"], "one image is explained at a time"),
            (
                ["a.png", "--label", "bird"],
                "unknown class 'bird'; the model knows defect, good",
            ),
            (["a.png", "--label", "2"], "unknown class '2'"),
            (["--data", "digits", "--invert"], "--invert is for image files"),
            (["a.png", "--out", "m.safetensors"], "--out writes an HTML page"),
        ],
    )
    def test_wrong_usage(self, folder, arguments, message):
        ran = run("explain", "--model", folder / "m.safetensors", *arguments)
        assert ran.code == 2
        assert message in ran.err


class TestTrouble:
    @posix
    def test_names_that_are_not_unicode(self, folder, tmp_path):
        image = os.fsencode(tmp_path) + b"/a\xff.png"
        with open(image, "wb") as file:  # noqa: PTH123
            file.write((folder / "parts" / "test" / "good" / "0.png").read_bytes())
        model, out = folder / "m.safetensors", tmp_path / "r.html"
        for arguments in (
            ["explain", model, os.fsdecode(image), "-o", out],
            ["predict", model, os.fsdecode(image), "--out", tmp_path / "a.csv"],
        ):
            ran = subprocess.run(
                command(*arguments), capture_output=True, text=True, env=environment()
            )
            assert (ran.returncode, "Traceback" in ran.stderr) == (0, False), ran.stderr
        assert "\\udcff" in out.read_text(encoding="utf-8")
        assert "a\\udcff.png" in (tmp_path / "a.csv").read_text(encoding="utf-8")
        fb.explain(fb.load(model), np.zeros((1, 12, 12)), 0, out, title="\ud800")

    @posix
    def test_a_reader_that_goes(self, folder, tmp_path):
        """What was to be written is; the end is quiet."""
        np.save(tmp_path / "x.npy", np.zeros((5000, 12, 12), np.uint8))
        out = tmp_path / "a.csv"
        predicting = subprocess.Popen(
            command(
                "predict", folder / "m.safetensors", tmp_path / "x.npy", "--out", out, "--json"
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        predicting.stdout.read(1)
        predicting.stdout.close()
        assert (predicting.stderr.read(), predicting.wait(60)) == (b"", 1)
        predicting.stderr.close()
        assert len(rows_of(out)) == 5000

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
    @pytest.mark.parametrize("option", [[], ["--json"]])
    def test_standard_output_that_is_full(self, option):
        with open("/dev/full", "w") as full:  # noqa: PTH123
            ran = subprocess.run(
                command("summary", "small", *option),
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(),
            )
        assert (ran.returncode, ran.stderr) == (1, "error: No space left on device\n")

    @pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
    def test_too_little_memory(self, folder):
        """OpenBLAS then sends a SIGINT, which is not a user's Ctrl-C."""
        ran = subprocess.run(
            f"ulimit -v 150000; exec {sys.executable} -m fullback eval "
            f"{folder / 'm.safetensors'} --data {folder / 'parts'}",
            shell=True,
            capture_output=True,
            text=True,
            timeout=60,
            env=environment(),
        )
        assert ran.returncode == 1
        assert ran.stderr.splitlines()[-1] == f"error: {NO_MEMORY}"
        assert "interrupted" not in ran.stderr
        assert "Traceback" not in ran.stderr

    @pytest.mark.parametrize(
        ("error", "code", "message"),
        [
            (MemoryError(), FAILURE, NO_MEMORY),
            (ImportError("x.so: failed to map segment from shared object"), FAILURE, NO_MEMORY),
            (RuntimeError("can't start new thread"), FAILURE, NO_MEMORY),
            (OSError(12, "Cannot allocate memory"), FAILURE, NO_MEMORY),
            (RecursionError("maximum recursion depth"), FAILURE, "nested too deeply"),
            (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates"), FAILURE, "rename it"),
            (OSError(2, "No such file", "a\udcff"), FAILURE, "a\\udcff: No such file"),
            (fb.OptionError("wrong"), USAGE, "wrong"),
        ],
    )
    def test_every_error_of_the_system_is_one_line(self, error, code, message, capsys):
        import typer

        @one_line_errors
        def command():
            raise error

        with pytest.raises(typer.Exit) as ended:
            command()
        assert ended.value.exit_code == code
        err = capsys.readouterr().err
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert message in err

    def test_ctrl_c_is_told_from_too_little_memory(self, monkeypatch, capsys):
        import typer

        @one_line_errors
        def command():
            signal.default_int_handler(signal.SIGINT, None)

        for starts, code, message in ((True, 130, "interrupted"), (False, 1, NO_MEMORY)):
            monkeypatch.setattr("fullback.cli.output.can_start_threads", lambda own=starts: own)
            with pytest.raises(typer.Exit) as ended:
                command()
            assert ended.value.exit_code == code
            assert capsys.readouterr().err == f"error: {message}\n"
