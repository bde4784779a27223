"""fullback train: the network it chooses, failed attempts, what it keeps, closed pipes, --from."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import fullback as fb
from fullback.cli import session
from fullback.cli.model_file import save_model
from fullback.cli.recipe import class_weights
from fullback.training.checkpoint import read_run
from support.command import command, done, environment, posix, run

pytestmark = pytest.mark.filterwarnings("default::fullback.errors.FullbackWarning")

RNG = np.random.default_rng(0)
DEAD = ("--net", "flatten dense1 relu dense3", "--lr", 500, "--epochs", 40)


def stripes(count, size=12, channels=1, kinds=3):
    """Images of stripes, whose directions are the classes, with noise."""
    y = np.arange(count) % kinds
    at = np.arange(size)
    angle = np.pi * y / kinds
    rows, columns = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    phase = RNG.uniform(0, 6.28, (count, 1, 1))
    waves = np.sin(1.6 * (rows * at[None, :, None] + columns * at[None, None, :]) + phase)
    noise = RNG.normal(0, 20, (count, channels, size, size))
    return (128 + 80 * waves[:, None] + noise).clip(0, 255).astype(np.uint8), y


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("train")


@pytest.fixture(scope="module")
def bars(folder):
    """90 images of stripes in three classes that have names."""
    x, y = stripes(90)
    for name, own in (("across", 0), ("aslant", 1), ("down", 2)):
        (folder / "bars" / name).mkdir(parents=True)
        for n, image in enumerate(x[y == own]):
            Image.fromarray(image[0]).save(folder / "bars" / name / f"{n}.png")
    return folder / "bars"


@pytest.fixture(scope="module")
def toy(folder):
    """Images of stripes as an array, with class numbers."""
    x, y = stripes(60)
    np.savez(folder / "toy.npz", x_train=x[:45], y_train=y[:45], x_test=x[45:], y_test=y[45:])
    return folder / "toy.npz"


@pytest.fixture(scope="module")
def numbers(folder):
    """Images whose brightness is the target, in units of thousands."""
    level = RNG.uniform(0, 1, 160)
    x = RNG.integers(0, 60, (160, 1, 10, 10)) + level[:, None, None, None] * 180
    y = 100_000 + 50_000 * level
    x = x.astype(np.uint8)
    np.savez(folder / "n.npz", x_train=x[:120], y_train=y[:120], x_test=x[120:], y_test=y[120:])
    return folder / "n.npz"


@pytest.fixture(scope="module")
def named():
    x, y = stripes(12)
    return fb.Dataset("named", x, y, x, y, ("tabby cat", "dog", "fox"))


@pytest.fixture(scope="module")
def trained(numbers, folder):
    out = folder / "numbers.safetensors"
    options = ("--data", numbers, "--regression", "--epochs", 30, "--out", out)
    return done("train", *options, "--json"), out


@pytest.fixture(scope="module")
def model(bars, folder):
    out = folder / "from.safetensors"
    options = ("--net", "conv4 relu pool flatten dense3", "--epochs", 10, "--out", out)
    done("train", "--data", bars, *options)
    return out


class TestTheNetwork:
    def test_of_images_of_your_own(self, bars, tmp_path):
        ran = done("train", "--data", bars, "--epochs", 12, "--json", "--out", tmp_path / "m.st")
        assert ran.events[0]["net"] == "compact"
        assert "the default for images of your own" in ran.events[0]["origin"]
        assert ran.result["test_accuracy"] > 0.7

    def test_of_digits(self, tmp_path):
        ran = done("train", "--epochs", 1, "--no-compare", "--out", tmp_path / "m.st")
        assert "network    question, seed 0\n" in ran.out
        assert "the default for digits and mnist; --net takes another" in ran.out

    def test_one_that_is_named(self, bars, tmp_path):
        options = ("--net", "flatten dense3", "--epochs", 1, "--json", "--out", tmp_path / "m.st")
        assert done("train", "--data", bars, *options).events[0]["origin"] == ""

    @pytest.mark.parametrize("size", [1, 3, 8, 20, 28, 32, 64, 100, 128])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_compact_fits_any_image(self, size, channels):
        net = fb.zoo.compact((channels, size, size), 100)
        last = net.shapes[net.names.index("globalavgpool1") - 1]
        assert last[0] == 64
        assert min(size, 6) <= last[1] <= 11
        assert net.output_shape == (100,)
        assert sum(array.size for array in net.parameters.values()) < 110_000

    def test_compact_of_a_strip(self):
        assert fb.zoo.compact((1, 2, 500), 2).output_shape == (2,)


class TestFailure:
    """A run that ends with a dead layer, or no better than chance."""

    def test_no_attempt_succeeds(self, toy, tmp_path):
        out = tmp_path / "m.safetensors"
        out.write_bytes(b"an earlier model")
        ran = run("train", "--data", toy, *DEAD, "--json", "--out", out)
        assert ran.code == 1
        kinds = [event["event"] for event in ran.events if event["event"] != "epoch"]
        assert kinds == ["start", "retry", "retry", "failed"]
        retries = [event for event in ran.events if event["event"] == "retry"]
        assert [event["attempt"] for event in retries] == [2, 3]
        assert [event["seed"] for event in retries] == [1, 2]
        assert [event["learning_rate"] for event in retries] == [170, 56]
        assert "dead" in retries[0]["reason"]
        error = ran.err.splitlines()[-1]
        assert error.startswith("error: the network learned nothing in 3 attempts: relu1 is dead")
        assert "fullback data" in error
        assert out.read_bytes() == b"an earlier model"
        assert fb.load(tmp_path / "m.failed.safetensors").output_shape == (3,)
        assert len(list(tmp_path.iterdir())) == 2

    def test_a_run_that_failed_is_told_again_and_listed(self, toy, tmp_path):
        ran = run("train", "--data", toy, *DEAD, "--json", "--run", tmp_path / "r")
        assert ran.code == 1
        again = run("train", "--resume", tmp_path / "r", "--json")
        assert (again.code, again.err.splitlines()[-1]) == (1, ran.err.splitlines()[-1])
        assert again.events[-1]["event"] == "failed"
        (event,) = run("runs", tmp_path / "r", "--json").events
        assert event["state"] == "failed"
        assert not (tmp_path / "r" / "model.safetensors").exists()

    def test_the_second_attempt_succeeds(self, toy, tmp_path, monkeypatch):
        answers = iter(["relu1 is dead", None])
        monkeypatch.setattr(session.Session, "_failure", lambda *_: next(answers))
        out = tmp_path / "m.safetensors"
        page = done("train", "--data", toy, "--epochs", 2, "--seed", 5, "--out", out).out
        assert "failed     relu1 is dead\n" in page
        assert "again      attempt 2 of 3, from seed 6 at rate 0.017\n" in page
        assert "of attempt 2, from seed 6 at rate 0.017; what came before learned nothing" in page
        options = ("--epochs", 2, "--seed", 6, "--lr", 0.017, "--out", tmp_path / "n.safetensors")
        answers = iter([None])
        done("train", "--data", toy, *options)
        assert out.read_bytes() == (tmp_path / "n.safetensors").read_bytes()

    def test_chance_after_a_few_steps_is_a_warning(self, toy, tmp_path):
        options = ("--net", "flatten dense3", "--lr", 1e-9, "--out", tmp_path / "m.safetensors")
        ran = done("train", "--data", toy, "--epochs", 2, *options)
        assert "these were only 2 training steps: give more --epochs" in ran.err
        assert "saved " in ran.out

    def test_chance_after_many_is_an_error(self, toy, tmp_path):
        options = ("--net", "flatten dense3", "--lr", 1e-9, "--out", tmp_path / "m.safetensors")
        ran = run("train", "--data", toy, "--epochs", 40, *options)
        assert ran.code == 1
        assert "of the training images, and the commonest class alone is" in ran.err
        assert "saved " not in ran.out

    def test_a_run_keeps_its_attempts_and_goes_on_with_the_last(self, toy, tmp_path, monkeypatch):
        """Interrupted in the second attempt, it ends as one that was not."""
        options = ("--data", toy, "--net", "conv2 relu pool flatten dense3", "--epochs", 3)
        options = (*options, "--validation", 0.2)
        fail_first = session.Session._failure

        def failure(self, network, recipe, *more):
            return (
                "it did not"
                if recipe.training.seed == 0
                else fail_first(self, network, recipe, *more)
            )

        monkeypatch.setattr(session.Session, "_failure", failure)
        whole, broken = tmp_path / "whole", tmp_path / "broken"
        assert run("train", *options, "--run", whole).code == 0
        assert {path.name for path in (whole / "attempt-1").iterdir()} == {
            "checkpoint.safetensors",
            "history.csv",
            "history.json",
            "reason.txt",
        }
        assert (whole / "attempt-1" / "reason.txt").read_text() == "it did not\n"

        def stop(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as once:
            once.setattr(session.Session, "_say_again", stop)
            assert run("train", *options, "--run", broken).code == 130
        train, calls = fb.fit, []

        def interrupted(net, *data, **more):
            calls.append(more["seed"])
            last = len(calls) == 2
            callbacks = [*more["callbacks"], lambda epoch: last and epoch.epoch == 2]
            history = train(net, *data, **{**more, "callbacks": callbacks})
            history.interrupted = last
            return history

        with monkeypatch.context() as once:
            once.setattr("fullback.training.fit.fit", interrupted)
            assert run("train", "--resume", broken).code == 130
        assert calls == [0, 1]
        assert run("train", "--resume", broken).code == 0
        ours, other = (fb.load(own / "model.safetensors") for own in (whole, broken))
        for name, array in ours.parameters.items():
            np.testing.assert_array_equal(other.parameters[name], array)
        assert len(read_run(broken / "checkpoint.safetensors")[1]) == 3
        assert json.loads((broken / "result.json").read_text())["attempt"] == 2


class TestWhatIsKept:
    def test_the_model_that_was_there(self, toy, tmp_path):
        out, previous = tmp_path / "m.safetensors", tmp_path / "m.previous.safetensors"
        options = ("--data", toy, "--net", "flatten dense3", "--epochs", 2, "--out", out)
        assert "previous" not in done("train", *options).out
        first = out.read_bytes()
        page = done("train", *options, "--seed", 1).out
        assert f"the model that was there is now {previous}" in page
        assert previous.read_bytes() == first
        second = out.read_bytes()
        result = done("train", *options, "--seed", 1, "--json").result  # the same once more
        assert result["previous"] is None
        assert (out.read_bytes(), previous.read_bytes()) == (second, first)
        result = done("train", *options, "--seed", 2, "--json").result
        assert result["previous"] == str(previous)
        assert previous.read_bytes() == second
        assert {path.name for path in tmp_path.iterdir()} == {out.name, previous.name}

    def test_where_files_cannot_have_two_names(self, tmp_path, monkeypatch):
        def no_links(*_):
            raise OSError(1, "Operation not permitted")

        monkeypatch.setattr("os.link", no_links)
        out = tmp_path / "m.safetensors"
        out.write_bytes(b"old")
        assert save_model(fb.zoo.question(), out) == tmp_path / "m.previous.safetensors"
        assert (tmp_path / "m.previous.safetensors").read_bytes() == b"old"
        assert fb.load(out).output_shape == (10,)

    @posix
    def test_a_link_is_followed(self, tmp_path):
        (tmp_path / "models").mkdir()
        (tmp_path / "models" / "m.safetensors").write_bytes(b"old")
        (tmp_path / "m.safetensors").symlink_to(tmp_path / "models" / "m.safetensors")
        save_model(fb.zoo.question(), tmp_path / "m.safetensors")
        assert (tmp_path / "m.safetensors").is_symlink()
        assert (tmp_path / "models" / "m.previous.safetensors").read_bytes() == b"old"

    def test_a_place_that_cannot_be_written(self, toy, tmp_path):
        (tmp_path / "m.previous.safetensors").mkdir()
        ran = run("train", "--data", toy, "--out", tmp_path / "m.safetensors")
        assert ran.code == 1
        assert "m.previous.safetensors is not a file that can be replaced" in ran.err


class TestClosedPipes:
    """What was learned is saved, whether or not anything reads the output."""

    @posix
    @pytest.mark.parametrize("options", [[], ["--json"]])
    def test_a_reader_that_takes_one_line(self, toy, tmp_path, options):
        out = tmp_path / "m.safetensors"
        arguments = ("train", "--data", toy, "--net", "flatten dense3", "--epochs", 60)
        training = subprocess.Popen(
            command(*arguments, "--out", out, *options),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        assert training.stdout.readline()
        training.stdout.close()
        err = training.stderr.read()
        training.stderr.close()
        assert training.wait(60) == 1
        wanted = "error: standard output could not be written (Broken pipe); the model is trained"
        assert err.splitlines()[-1] == f"{wanted} and saved as {out}"
        done(*arguments, "--out", tmp_path / "whole.safetensors")
        assert out.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
    def test_a_full_disk(self, toy, tmp_path):
        out = tmp_path / "m.safetensors"
        arguments = ("train", "--data", toy, "--net", "flatten dense3", "--epochs", 2, "--out", out)
        with open("/dev/full", "w") as full:  # noqa: PTH123
            ran = subprocess.run(
                command(*arguments), stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
            )
        assert ran.returncode == 1
        assert "(No space left on device); the model is trained and saved as" in ran.stderr
        assert fb.load(out).output_shape == (3,)

    @posix
    def test_both_streams(self, toy, tmp_path):
        """``2>&1 | head -1``: warnings have nowhere to go either."""
        out = tmp_path / "m.safetensors"
        words = command("train", "--data", toy, "--net", "flatten dense3", "--epochs", 2)
        words += ["--lr", "1e-9", "--out", str(out)]  # which warns
        shell = f"{subprocess.list2cmdline(words)} 2>&1 | head -n 1"
        ran = subprocess.run(shell, shell=True, capture_output=True, text=True, timeout=60)
        assert ran.stdout.startswith("data ")
        assert out.exists()


class TestClassWeights:
    @pytest.mark.parametrize(
        ("text", "balanced", "weights"),
        [
            (None, False, None),
            (None, True, "balanced"),
            ("balanced", False, "balanced"),
            ("dog=2 fox=0.5", False, {1: 2, 2: 0.5}),
            ("'tabby cat=3' 1=2", False, {0: 3, 1: 2}),
        ],
    )
    def test_by_name_or_number(self, named, text, balanced, weights):
        assert class_weights(text, balanced, named) == weights

    @pytest.mark.parametrize(
        ("text", "balanced", "message"),
        [
            ("god=2", False, "has the class 'god'; the classes are tabby cat, dog, fox"),
            ("3=2", False, "has the class '3'"),
            ("dog", False, "has the class ''|has 'dog'"),
            ("dog=-1", False, "a weight of at least 0"),
            ("dog=nan", False, "a weight of at least 0"),
            ("dog=much", False, "a weight of at least 0"),
            ("dog=1 1=2", False, "gives class dog two weights"),
            ("'dog=2", False, "No closing quotation"),
            ("", False, "is empty"),
            ("dog=2", True, "give one"),
        ],
    )
    def test_that_make_no_sense(self, named, text, balanced, message):
        with pytest.raises(fb.OptionError, match=message):
            class_weights(text, balanced, named)

    def test_a_number_is_a_name_where_classes_have_numbers(self):
        x, y = stripes(12)
        data = fb.Dataset("years", x, y, x, y, ("7", "8", "9"))
        assert class_weights("8=2", False, data) == {1: 2}
        with pytest.raises(fb.OptionError, match="has the class '1'"):
            class_weights("1=2", False, data)

    def test_in_training(self, bars, tmp_path):
        """A class of weight 0 is never learned."""
        options = ("--data", bars, "--net", "small", "--epochs", 10)
        options = (*options, "--out", tmp_path / "m.safetensors")
        done("train", *options, "--class-weight", "across=0 down=2")
        net = fb.load(tmp_path / "m.safetensors")
        data = fb.load_data(bars)
        assert net.class_names == ("across", "aslant", "down")
        assert 0 not in net.predict(data.x_test)


class TestNumbers:
    def test_answers_have_the_units_of_the_targets(self, trained, numbers):
        ran, out = trained
        assert ran.result["test_r2"] > 0.9
        (error,) = ran.result["test_mean_absolute_error"]
        with np.load(numbers) as data:
            given = fb.load(out).predict(data["x_test"])[:, 0]
            assert np.abs(given - data["y_test"]).mean() == pytest.approx(error, rel=1e-4)
        assert error < 5000
        assert "test_accuracy" not in ran.result

    def test_page(self, numbers, tmp_path):
        options = ("--regression", "--net", "flatten dense1", "--epochs", 40)
        page = done("train", "--data", numbers, *options, "--out", tmp_path / "m.safetensors").out
        assert "a number each" in page
        assert "test       R² 0.9" in page
        assert "mean absolute" in page

    def test_from_a_model_of_numbers(self, trained, numbers, tmp_path):
        """It begins with what was learned, in the units of the targets."""
        out = tmp_path / "m.safetensors"
        options = ("--data", numbers, "--regression", "--from", trained[1], "--lr", 1e-6)
        ran = done("train", *options, "--epochs", 1, "--json", "--out", out)
        assert ran.result["test_r2"] > 0.9
        assert ran.events[1]["loss"] < 0.2

    def test_in_a_run_folder(self, numbers, tmp_path):
        options = ("--data", numbers, "--regression", "--net", "flatten dense1", "--epochs", 30)
        assert run("train", *options, "--validation", 0.2, "--run", tmp_path / "r").code == 0
        assert (tmp_path / "r" / "best.standardised.safetensors").exists()
        assert json.loads((tmp_path / "r" / "result.json").read_text())["test_r2"] > 0.8
        before = (tmp_path / "r" / "model.safetensors").read_bytes()
        assert run("train", "--resume", tmp_path / "r").code == 0
        assert (tmp_path / "r" / "model.safetensors").read_bytes() == before

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (("--balanced",), "go with classes, not with --regression"),
            (("--net", "flatten dense2"), "the network must end with dense1, not Dense"),
            (("--net", "flatten dense1 relu"), "the network must end with dense1, not ReLU"),
            (("--validation", "0.2", "--monitor", "f1"), "goes with classes"),
        ],
    )
    def test_what_does_not_go_with_it(self, numbers, tmp_path, options, message):
        out = ("--out", tmp_path / "m.safetensors")
        ran = run("train", "--data", numbers, "--regression", *options, *out)
        assert (ran.code, ran.out) == (2, "")
        assert message in ran.err

    def test_one_target_alone(self, tmp_path):
        x, _ = stripes(20)
        np.savez(
            tmp_path / "n.npz", x_train=x, y_train=np.full(20, 7.5), x_test=x, y_test=x[:, 0, 0, 0]
        )
        ran = run("train", "--data", tmp_path / "n.npz", "--regression")
        assert ran.code == 1
        assert "all training images have the target 7.5" in ran.err


class TestFrom:
    def test_the_same_classes(self, model, bars, tmp_path):
        options = ("--from", model, "--lr", 1e-6, "--epochs", 1, "--json")
        ran = done("train", "--data", bars, *options, "--out", tmp_path / "m.safetensors")
        assert ran.events[0]["origin"].startswith("every layer as it was saved, the last one")
        before, after = fb.load(model), fb.load(tmp_path / "m.safetensors")
        for name, array in before.parameters.items():
            np.testing.assert_allclose(after.parameters[name], array, atol=1e-3)

    def test_other_classes(self, model, tmp_path):
        """The last layer is new, and the classes are those of the data."""
        x, y = stripes(40, kinds=2)
        for name, own in (("left", 0), ("right", 1)):
            (tmp_path / "d" / name).mkdir(parents=True)
            for n, image in enumerate(x[y == own]):
                Image.fromarray(image[0]).save(tmp_path / "d" / name / f"{n}.png")
        out = tmp_path / "m.safetensors"
        options = ("--from", model, "--freeze", "conv", "--epochs", 40, "--out", out)
        page = done("train", "--data", tmp_path / "d", *options).out
        text = " ".join(page.split())
        assert (
            "every layer as it was saved but dense1, which is new: 2 classes (left, right), "
            in text
        )
        assert "not 3 classes (across, aslant, down)" in text
        before, after = fb.load(model), fb.load(out)
        np.testing.assert_array_equal(
            after.parameters["conv1.weight"], before.parameters["conv1.weight"]
        )
        assert after.class_names == ("left", "right")
        assert after.frozen == {"conv1"}
        # and what is frozen is not handed on
        options = ("--from", out, "--epochs", 1, "--json", "--out", tmp_path / "n.safetensors")
        assert done("train", "--data", tmp_path / "d", *options).events[0]["frozen"] == []

    def test_files_are_brought_to_its_size(self, model, tmp_path):
        for name in ("across", "aslant", "down"):
            (tmp_path / "d" / name).mkdir(parents=True)
            for n in range(8):
                image = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
                Image.fromarray(image).save(tmp_path / "d" / name / f"{n}.png")
        options = ("--from", model, "--epochs", 1, "--json", "--out", tmp_path / "m.safetensors")
        assert done("train", "--data", tmp_path / "d", *options).code == 0

    @pytest.mark.parametrize(
        ("options", "code", "message"),
        [
            (("--net", "small"), 2, "brings its layers; leave --net out"),
            (("--image-size", "9x9"), 1, "takes images of shape (1, 12, 12), but bars has images"),
        ],
    )
    def test_what_does_not_go_with_it(self, model, bars, tmp_path, options, code, message):
        out = tmp_path / "m.safetensors"
        ran = run("train", "--data", bars, "--from", model, *options, "--out", out)
        assert ran.code == code
        assert message in ran.err
        assert not out.exists()

    def test_another_shape(self, model, tmp_path):
        x, y = stripes(12, size=9)
        np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x, y_test=y)
        ran = run("train", "--data", tmp_path / "d.npz", "--from", model)
        assert (ran.code, len(ran.err.splitlines())) == (1, 1)
        assert "takes images of shape (1, 12, 12), but d has images of shape (1, 9, 9)" in ran.err

    def test_in_a_configuration(self, model, bars, tmp_path):
        options = ("--data", bars, "--from", model, "--epochs", 2, "--run", tmp_path / "r")
        assert run("train", *options).code == 0
        assert f'from = "{model}"' in (tmp_path / "r" / "config.toml").read_text()
        assert run("train", "--resume", tmp_path / "r").code == 0


class TestValidation:
    def test_images_of_its_own(self, bars, tmp_path):
        """A folder val beside train and test."""
        for part, count in (("train", 20), ("val", 5), ("test", 5)):
            for kind in ("across", "down"):
                (tmp_path / "d" / part / kind).mkdir(parents=True)
                for n in range(count):
                    image = (bars / kind / f"{n}.png").read_bytes()
                    (tmp_path / "d" / part / kind / f"{n}.png").write_bytes(image + b"\0" * n)
        out = ("--out", tmp_path / "m.safetensors", "--net", "flatten dense2")
        ran = done(
            "train", "--data", tmp_path / "d", "--epochs", 3, "--patience", 2, "--json", *out
        )
        assert ran.events[1]["validation_loss"] is not None
        assert ran.result["best_epoch"] in (1, 2, 3)
        page = done("train", "--data", tmp_path / "d", "--epochs", 3, *out).out
        assert "40 training, 10 validation and 10 test images" in page
        assert "best epoch" in page
        ran = run("train", "--data", tmp_path / "d", "--validation", 0.2, *out)
        assert ran.code == 2
        assert "has 10 images for validation of its own; leave --validation out" in ran.err


def test_a_monitor_needs_images_to_tell_by(toy, tmp_path):
    ran = run("train", "--data", toy, "--monitor", "f1", "--out", tmp_path / "m.safetensors")
    assert (ran.code, ran.out) == (2, "")
    assert "--monitor needs images for validation; give --validation 0.1" in ran.err


def test_one_answer_to_all_test_images_is_told(toy, tmp_path):
    options = ("--net", "flatten dense3", "--class-weight", "0=1 1=0 2=0", "--epochs", 20)
    out = ("--out", tmp_path / "m.safetensors")
    ran = done("train", "--data", toy, *options, *out)
    assert "all 15 test images are taken for 0; where the other classes are rare" in ran.err


def test_the_rare_class_is_found(tmp_path):
    """Of the best epoch by balanced accuracy, where plain accuracy is 96 % with none of it."""
    x, y = stripes(300, kinds=2)
    rare = np.concatenate([np.flatnonzero(y == 0)[:150], np.flatnonzero(y == 1)[:6]])
    np.savez(tmp_path / "d.npz", x_train=x[rare], y_train=y[rare], x_test=x, y_test=y)
    out = tmp_path / "m.safetensors"
    options = (
        "--net",
        "small",
        "--epochs",
        15,
        "--validation",
        0.34,
        "--patience",
        3,
        "--balanced",
    )
    ran = done("train", "--data", tmp_path / "d.npz", *options, "--json", "--out", out)
    epochs = [event for event in ran.events if event["event"] == "epoch"]
    best = epochs[ran.result["best_epoch"] - 1]
    assert best["validation_balanced"] == max(own["validation_balanced"] for own in epochs)
    assert (fb.load(out).predict(x[y == 1]) == 1).mean() > 0.8


def test_the_scale_of_floats_is_told(tmp_path):
    x, y = stripes(30)
    for name, own, text in (
        ("shares", x / 255, "taken for black at 0 and white at 1"),
        ("bytes", x.astype(np.float32), "taken for black at 0 and white at 255"),
        ("standard", (x - 128.0) / 60, "which of them are black and white is not known"),
    ):
        np.savez(tmp_path / f"{name}.npz", x_train=own, y_train=y, x_test=own, y_test=y)
        options = ("--net", "normalize flatten dense3", "--epochs", 1)
        options = (*options, "--out", tmp_path / "m.safetensors")
        ran = done("train", "--data", tmp_path / f"{name}.npz", *options)
        assert text in ran.out
        assert ("floats up to 255" in ran.err) == (name == "bytes")


def test_help_is_read_without_anything_heavy():
    code = "import sys, fullback.cli.app; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=environment()).returncode == 0
