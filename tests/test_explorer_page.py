"""The explorer in a browser: drawing, training, the lab, uploads, links, phones, keyboards."""

import base64
import http.server
import io
import json
import re
import threading
import time
import warnings

import numpy as np
import pytest

import fullback as fb
from fullback.check.mistakes import MISTAKES, RULES
from support.networks import trained
from support.pages import click, terms

pytest.importorskip("starlette", reason="needs the extra explore")
pytest.importorskip("uvicorn", reason="needs the extra explore")

from fullback.explorer.launch import explorer

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def data():
    return fb.load_data("digits")


@pytest.fixture(scope="module")
def net(data):
    return trained(fb.zoo.question(seed=1), data, epochs=12)


@pytest.fixture(scope="module")
def server(net, data):
    with explorer(net, data, name="question", port=0) as server:
        yield server


@pytest.fixture
def show(server, visit):
    """Open the page; at the end no page may have asked anybody else for anything."""
    visits = []

    def open_page(address=None, **options):
        visits.append(visit(server.address if address is None else address, **options))
        visits[-1].page.wait_for_selector("html[data-ready]")
        until(visits[-1].page, "Boolean(window.fullback)")
        for card in ("training", "network"):
            visits[-1].page.evaluate("(card) => fullback.unfold(card, true)", card)
        return visits[-1]

    yield open_page
    own = (f"http://127.0.0.1:{server.port}/", "data:", "blob:")
    assert [url for each in visits for url in each.requests if not url.startswith(own)] == []


def shown(page):
    """What the page shows: the document."""
    return page.evaluate("fullback.document")


def numbers(packed):
    return np.frombuffer(base64.b64decode(packed["data"]), "<f4").reshape(packed["shape"])


def until(page, expression, arg=None):
    """Wait until an expression, or a function of ``arg``, is true.

    Playwright's own way evaluates text in the page, which its policy forbids.
    """
    deadline = time.monotonic() + 60
    while not page.evaluate(expression, arg):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(20)


def settled(page, work):
    """Do something, and wait until the page shows another document."""
    page.evaluate("() => { window.before = fullback.document; }")
    work()
    until(page, "fullback.document !== window.before")


def draw(page, strokes, touch=False):
    """Draw lines between places of the pad, which are shares of its sides."""
    page.locator("#pad").scroll_into_view_if_needed()
    box = page.locator("#pad").bounding_box()
    for stroke in strokes:
        places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        page.mouse.move(*places[0])
        page.mouse.down()
        for place in places[1:]:
            page.mouse.move(*place, steps=8)
        page.mouse.up()


def quiet(page):
    """Wait until the page has no drawing left to send."""
    until(
        page,
        """() => {
            const { pad, document: shown } = fullback;
            const bytes = Uint8Array.from(atob(shown.input.data), (c) => c.charCodeAt(0));
            const input = new Float32Array(bytes.buffer);
            return input.every((value, n) => Math.round(value * 255) === pad.bytes[n]);
        }""",
    )


ONE = [[(0.5, 0.2), (0.5, 0.8)]]
SEVEN = [[(0.3, 0.22), (0.7, 0.22), (0.45, 0.8)]]


NOISE = np.random.default_rng(0).integers(0, 256, (90, 90), np.uint8)


def png(pixels):
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


class TestImage:
    def test_draw_a_digit_and_see_the_prediction_change(self, show, net):
        page = show().page
        settled(page, lambda: page.click("#clear"))
        said = []
        for strokes in (ONE, SEVEN):
            settled(page, lambda: page.click("#clear"))
            settled(page, lambda strokes=strokes: draw(page, strokes))
            quiet(page)
            document = shown(page)
            pixels = np.round(numbers(document["input"]) * 255).astype(np.uint8)
            assert pixels.max() == 255
            p = net.predict_proba(pixels[None])[0]
            np.testing.assert_allclose(numbers(document["probabilities"]), p, atol=1e-5)
            assert page.inner_text("#predicted") == str(p.argmax())
            assert page.locator(".answer.label").get_attribute("data-class") == str(p.argmax())
            assert page.inner_text("#origin") == "Your drawing"
            assert page.input_value("#label") == ""
            said.append(p)
        assert abs(said[0] - said[1]).max() > 0.2

    def test_a_label_that_was_chosen_stays_while_one_draws(self, show):
        page = show().page
        settled(page, lambda: page.click("#clear"))
        settled(page, lambda: page.select_option("#label", "7"))
        settled(page, lambda: draw(page, SEVEN))
        quiet(page)
        assert shown(page)["label"] == 7
        assert page.input_value("#label") == "7"

    def test_draw_by_keyboard(self, show):
        page = show().page
        page.focus("#pad")
        settled(page, lambda: page.keyboard.press("Delete"))
        assert numbers(shown(page)["input"]).max() == 0
        for _ in range(6):
            page.keyboard.press("ArrowUp")
        settled(page, lambda: page.keyboard.press("Space"))
        for _ in range(10):
            page.keyboard.press("Shift+ArrowDown")
        quiet(page)
        ink = numbers(shown(page)["input"])[0]
        assert ink[8:19, 14].min() > 0.9
        assert ink[:5].max() == 0

    def test_draw_with_a_finger(self, show):
        page = show(**PHONE).page
        settled(page, lambda: page.tap("#clear"))
        box = page.locator("#pad").bounding_box()
        page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        quiet(page)
        ink = numbers(shown(page)["input"])[0]
        assert ink[14, 14] > 0.9
        assert (
            page.evaluate("getComputedStyle(document.getElementById('pad')).touchAction") == "none"
        )

    def test_pick_from_the_data(self, show, data):
        page = show().page
        page.click("#pick")
        page.select_option("#gallery-label", "4")
        until(
            page,
            "[...document.querySelectorAll('#gallery-images button')].every("
            "(one) => /: 4,/.test(one.title)) && document.querySelector('#gallery-images button')",
        )
        first = page.locator("#gallery-images button").first
        index = int(re.match(r"test image (\d+): 4, predicted", first.get_attribute("title"))[1])
        settled(page, first.click)
        np.testing.assert_array_equal(
            numbers(shown(page)["input"]), data.x_test[index] / np.float32(255)
        )
        assert page.input_value("#label") == "4"
        assert page.inner_text("#origin") == f"Image {index} of the test images"
        assert not page.locator("#gallery").is_visible()
        settled(page, lambda: page.click("#next"))
        assert page.inner_text("#origin") == f"Image {index + 1} of the test images"
        settled(page, lambda: page.click("#previous"))
        settled(page, lambda: page.click("#previous"))
        assert page.inner_text("#origin") == f"Image {index - 1} of the test images"

    def test_only_those_it_gets_wrong_by_keyboard(self, show, net, data):
        page = show().page
        page.focus("#pick")
        page.keyboard.press("Enter")
        page.focus("#gallery-wrong")
        page.keyboard.press("Space")
        wrong = int((net.predict(data.x_test) != data.y_test).sum())
        until(
            page,
            f"document.getElementById('gallery-said').textContent === '1 to {wrong} of {wrong}'",
        )
        page.focus("#gallery-images button:nth-child(2)")
        settled(page, lambda: page.keyboard.press("Enter"))
        assert "missed" in page.locator("#answer").get_attribute("class")
        page.keyboard.press("Escape")

    def test_upload(self, show, tmp_path):
        page = show().page
        pixels = np.full((40, 40), 255, np.uint8)
        pixels[8:32, 18:22] = 0
        (tmp_path / "ink.png").write_bytes(png(pixels))
        page.check("#invert")
        settled(page, lambda: page.set_input_files("#upload", tmp_path / "ink.png"))
        ink = numbers(shown(page)["input"])[0]
        assert ink[14, 14] > 0.8
        assert ink[:3].max() < 0.05
        assert page.inner_text("#origin") == "Your picture"

    def test_hostile_uploads_are_told_and_the_page_goes_on(self, show, tmp_path):
        visited = show()
        page, before = visited.page, shown(visited.page)
        for name, body, match in (
            ("a.png", b"no picture", "is not an image of a known format"),
            ("a.svg", b"<svg onload='alert(1)'/>", "is not an image of a known format"),
            ("b.png", png(NOISE)[:700], "cannot be read as an image"),
            ("<img src=x onerror=alert(1)>.png", b"", "not an image of a known format"),
        ):
            payload = {"name": name, "mimeType": "image/png", "buffer": body}
            page.set_input_files("#upload", payload)
            until(
                page,
                "(match) => document.getElementById('problem').textContent.includes(match)",
                arg=match,
            )
            assert page.locator("#problem").is_visible()
            assert shown(page) == before
        settled(page, lambda: page.click("#next"))
        assert not page.locator("#problem").is_visible()
        assert all("400 (Bad Request)" in problem for problem in visited.problems)
        visited.problems.clear()


class TestPicture:
    def test_a_filter_gradient_of_a_drawing(self, show, net):
        """Every number of the panel is that of net.trace."""
        page = show().page
        settled(page, lambda: page.click("#clear"))
        settled(page, lambda: draw(page, SEVEN))
        quiet(page)
        settled(page, lambda: page.select_option("#label", "2"))
        document = shown(page)
        pixels = np.round(numbers(document["input"]) * 255).astype(np.uint8)
        trace = net.trace(pixels[None], [2])
        for name, array in trace.gradients.items():
            np.testing.assert_array_equal(numbers(document["gradients"][name]), array)
        page.evaluate("fullback.picture = fullback.view.picture")
        click(page, "g:conv1.weight", [0, 0, 1, 0])
        panel = page.locator(".panel")
        expected = float(trace.gradients["conv1.weight"][0, 0, 1, 0])
        assert panel.get_attribute("data-cell") == "g:conv1.weight/0,0,1,0"
        assert float(panel.get_attribute("data-value")) == expected
        page.check(".panel .zeros")
        page.click(".panel .controls .more")
        rows = terms(page)
        x = np.pad(trace.activations["input"][0, 0].astype(float), 1)[1:29, 0:28]
        dy = trace.deltas["conv1"][0, 0].astype(float)
        np.testing.assert_array_equal([row["factors"][0][1] for row in rows], x.ravel())
        np.testing.assert_array_equal([row["factors"][1][1] for row in rows], dy.ravel())
        np.testing.assert_allclose(rows[-1]["running"], expected, rtol=1e-3)

    def test_step_through_the_whole_program_by_keyboard(self, show):
        page = show().page
        program = shown(page)["program"]
        page.keyboard.press("Home")
        for n, step in enumerate(program):
            sentence = page.inner_text(".stepper .sentence")
            assert sentence.startswith(f"Instruction {n + 1} of {len(program)}, {step['pass']}.")
            assert sentence.endswith(step["sentence"])
            page.keyboard.press("ArrowRight")
        assert page.inner_text(".stepper .sentence").startswith("The whole pass.")

    def test_the_controls_can_be_hidden(self, show):
        page = show().page
        page.click("#controls")
        assert not page.locator("#image-card").is_visible()
        assert page.locator("#controls").get_attribute("aria-expanded") == "false"
        page.click("#controls")
        assert page.locator("#image-card").is_visible()

    def test_the_colours(self, show):
        page = show(color_scheme="dark").page
        paper = "getComputedStyle(document.body).backgroundColor"
        dark = page.evaluate(paper)
        page.click("#theme")
        assert page.locator("#theme").get_attribute("aria-label") == "Colours: light"
        assert page.evaluate(paper) != dark
        page.reload()
        page.wait_for_selector("html[data-ready]")
        assert page.evaluate(paper) != dark
        page.click("#theme")
        assert page.evaluate(paper) == dark

    def test_answers_come_at_once(self, show):
        """From a choice to the new picture; on a busy machine this may take some time longer."""
        page = show().page
        took = page.evaluate(
            """async () => {
                const times = [];
                for (let n = 0; n < 8; n += 1) {
                    const start = performance.now();
                    await fullback.pick("test", n);
                    times.push(performance.now() - start);
                }
                return times.sort((a, b) => a - b)[3];
            }"""
        )
        assert took < 300


class TestTraining:
    def test_one_step(self, show, net):
        page = show().page
        before = shown(page)
        page.fill("#step-rate", "0.002")
        settled(page, lambda: page.click("#step"))
        after = shown(page)
        assert after["loss"] < before["loss"]
        weight = numbers(before["parameters"]["conv1.weight"])
        step = np.float32(0.002) * numbers(before["gradients"]["conv1.weight"])
        np.testing.assert_allclose(
            numbers(after["parameters"]["conv1.weight"]), weight - step, rtol=1e-5, atol=1e-7
        )
        said = page.inner_text("#step-result")
        assert re.search(r"loss [\d.]+ → [\d.]+", said)
        label = page.locator(".bars .label")
        shares = [numbers(d["probabilities"])[before["label"]] for d in (before, after)]
        for cell, share in zip(label.locator("td").all(), shares, strict=True):
            assert float(cell.inner_text().split()[0]) == pytest.approx(100 * share, abs=0.06)

    def train(self, page, **options):
        for name, value in options.items():
            page.fill(f"#{name}", str(value))
        page.click("#train")
        until(page, "!fullback.training.watching && fullback.training.run?.finished")

    def test_live(self, show, data):
        page = show().page
        settled(page, lambda: page.click("#reset"))
        new = shown(page)["parameters"]["conv1.weight"]
        assert new == page.evaluate("fullback.document.parameters['conv1.weight']")
        seen = page.evaluate(
            """async () => {
                const seen = new Set();
                document.getElementById("pace").value = "slow";
                document.getElementById("train").click();
                while (seen.size < 4) {
                    seen.add(fullback.document.parameters["conv1.weight"].data);
                    await new Promise((done) => setTimeout(done, 20));
                }
                return [...seen];
            }"""
        )
        assert len(set(seen)) == 4  # the filters change while one looks
        assert page.locator("#curve").is_visible()
        assert page.inner_text("#training-said").startswith("In epoch 1 of 20")
        page.click("#pause")
        until(page, "!fullback.training.watching")
        assert page.inner_text("#pause") == "Go on"
        paused = shown(page)["parameters"]
        page.wait_for_timeout(300)
        assert shown(page)["parameters"] == paused
        page.select_option("#pace", "full")
        page.evaluate("fullback.training.setPace()")
        page.click("#pause")
        page.wait_for_timeout(50)
        page.evaluate("fullback.training.setPace()")
        until(page, "!fullback.training.watching && fullback.training.run?.finished")
        own = fb.zoo.question(seed=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", fb.DeadUnitWarning)
            fb.fit(own, data.x_train, data.y_train, epochs=20, verbose=False)
        for name, array in own.parameters.items():
            np.testing.assert_array_equal(numbers(shown(page)["parameters"][name]), array)
        right = own.score(data.x_test, data.y_test)
        assert f"{100 * right:.1f} % of the test images right" in page.inner_text("#training-said")

    def test_the_question_s_way_beside_the_whole(self, show):
        page = show().page
        settled(page, lambda: page.click("#reset"))
        page.check("#freeze")
        filters = shown(page)["parameters"]["conv1.weight"]
        self.train(page, epochs=4)
        assert shown(page)["parameters"]["conv1.weight"] == filters
        settled(page, lambda: page.click("#reset"))
        page.uncheck("#freeze")
        self.train(page, epochs=4)
        assert shown(page)["parameters"]["conv1.weight"] != filters
        rows = [row.inner_text() for row in page.locator("#runs tbody tr").all()]
        assert len(rows) == 2
        assert rows[0].startswith("filters frozen, 4 \N{MULTIPLICATION SIGN} 0.05")
        assert rows[1].startswith("all trained, 4 \N{MULTIPLICATION SIGN} 0.05")

    def test_numbers_that_will_not_do(self, show):
        page = show().page
        page.fill("#rate", "-1")
        page.click("#train")
        assert page.inner_text("#problem").startswith("Learning rate")

    def test_a_rate_that_is_too_large(self, show):
        visited = show()
        page = visited.page
        page.fill("#text", "conv4 " * 24 + "flatten dense10")  # nothing in it holds numbers back
        settled(page, lambda: page.click("#build"))
        page.fill("#rate", "10")
        page.fill("#epochs", "3")
        page.click("#train")
        until(
            page,
            "document.getElementById('training-said').textContent.includes('too large')",
        )
        until(page, "!fullback.training.watching")
        page.fill("#rate", "0.05")
        page.click("#reset")
        until(page, "fullback.document.loss < 10")


class TestNetworks:
    def test_build_from_text(self, show):
        page = show().page
        page.select_option("#examples", label="with batch normalisation")
        text = page.input_value("#text")
        assert text.startswith("conv4 batchnorm relu pool")
        settled(page, lambda: page.click("#build"))
        assert page.inner_text("#about") == f"your network: {text}"
        assert page.locator("canvas[data-array='a:batchnorm1']").count() == 1
        page.fill("#epochs", "2")
        page.click("#train")
        until(page, "!fullback.training.watching && fullback.training.run?.finished")

    def test_every_example_can_be_built(self, show):
        page = show().page
        for n in range(1, page.locator("#examples option").count()):
            page.select_option("#examples", index=n)
            settled(page, lambda: page.click("#build"))
            assert not page.locator("#problem").is_visible()
            assert page.evaluate("fullback.state.text") == page.input_value("#text")

    def test_text_that_will_not_do(self, show):
        visited = show()
        page = visited.page
        page.fill("#text", "cnov8 <b>")
        page.click("#build")
        page.wait_for_selector("#problem:visible")
        assert "did you mean conv?" in page.inner_text("#problem")
        assert page.input_value("#text") == "cnov8 <b>"
        assert ["400" in problem for problem in visited.problems] == [True]
        visited.problems.clear()

    def test_open_and_save_a_model(self, show, tmp_path):
        visited = show()
        page = visited.page
        own = fb.Network.parse("conv3 relu pool flatten dense5", (3, 20, 16), seed=8)
        fb.save(own, tmp_path / "own.safetensors")
        settled(page, lambda: page.set_input_files("#model", tmp_path / "own.safetensors"))
        assert page.inner_text("#about").startswith("own.safetensors: conv3 relu pool")
        assert page.locator("#pick").is_disabled()
        assert page.locator("#train").is_disabled()
        settled(page, lambda: draw(page, ONE))
        quiet(page)
        assert numbers(shown(page)["input"]).shape == (3, 20, 16)
        page.click("#tab-lab")
        page.wait_for_selector("#lab-view[data-state=done]")
        assert "nothing to train it on" in page.inner_text("#curves-said")
        with page.expect_download() as download:
            page.click("#save")
        download.value.save_as(tmp_path / "saved.safetensors")
        saved = fb.load(tmp_path / "saved.safetensors")
        for name, array in own.parameters.items():
            np.testing.assert_array_equal(saved.parameters[name], array)

    def test_models_that_will_not_do(self, show):
        visited = show()
        page = visited.page
        for name, body, match in (
            ("m.onnx", b"x", "come with the importer, later"),
            ("m.safetensors", b"nonsense", "damaged or no model file"),
        ):
            page.set_input_files(
                "#model", {"name": name, "mimeType": "application/x", "buffer": body}
            )
            until(
                page,
                "(match) => document.getElementById('problem').textContent.includes(match)",
                arg=match,
            )
        assert len(visited.problems) == 1
        visited.problems.clear()
        settled(page, lambda: page.click("#next"))


def choose(page, mistake):
    page.select_option("#mistake", mistake)


class TestLab:
    @pytest.fixture
    def page(self, show):
        page = show().page
        page.click("#tab-lab")
        page.wait_for_selector("#checks li")
        return page

    def checked(self, page):
        """Wait until every check has answered, and training with the mistake has begun."""
        until(
            page,
            "document.querySelectorAll('#checks li').length === 7 && fullback.lab.curves.length",
        )

    def test_each_mistake(self, page):
        """One of every kind of layer; those that this network cannot have, in one that can."""
        elsewhere = 0
        firsts = [next(iter(rules.mutants.mistakes), None) for rules in RULES.values()]
        for mistake in sorted({first.id for first in firsts if first}):
            choose(page, mistake)
            if page.locator("#impossible").is_visible():
                elsewhere += 1
                assert "it needs" in page.inner_text("#needs")
                assert page.locator("#checks li").count() == 0
                page.click("#other-network")
                until(
                    page,
                    "(id) => fullback.lab.mistake?.id === id && fullback.lab.mistake.ways.length",
                    arg=mistake,
                )
            self.checked(page)
            assert page.inner_text("#sentence") == MISTAKES[mistake].sentence
            changed = page.locator(".change").count()
            assert changed, mistake
            caught = page.locator("#checks .caught").count()
            assert caught, mistake
            assert page.locator("#checks .missed").count() == 7 - caught
            assert not page.locator("#problem").is_visible()
        assert elsewhere

    def test_what_changes(self, page, net, data):
        choose(page, "filter-not-turned")
        self.checked(page)
        arrays = page.eval_on_selector_all(
            ".change", "(all) => all.map((one) => one.dataset.array)"
        )
        assert arrays == [
            "delta:pool1", "delta:relu1", "delta:conv1", "gradient:conv1.weight",
            "gradient:conv1.bias", "delta:input",
        ]  # fmt: skip
        figures = page.locator("[data-array='delta:pool1'] figure")
        assert figures.all_inner_texts() == ["right", "wrong", "difference"]
        assert "Right all the same: " in page.inner_text("#changes")
        page.select_option("#place", "conv1")
        until(page, "document.querySelectorAll('.change').length === 1")
        assert page.locator(".change").get_attribute("data-array") == "delta:input"

    def test_a_mistake_that_only_diagnose_sees(self, page):
        choose(page, "pool-ties-all")
        self.checked(page)
        found = {
            item.get_attribute("data-check"): item.locator("strong").inner_text()
            for item in page.locator("#checks li").all()
        }
        assert found["shapes"] == "does not see it"
        assert found["noise"] == "does not see it"
        assert found["diagnose with deltas"] == "names it"

    def test_the_curves(self, page):
        choose(page, "filter-not-turned")
        page.wait_for_selector("#lab-view[data-state=done]", timeout=60000)
        curves = page.evaluate("fullback.lab.curves")
        assert [row["step"] for row in curves] == [*range(1, 161)]
        assert curves[0]["right"] == curves[0]["wrong"]
        assert curves[-1]["right"] < curves[0]["right"] / 2
        said = page.inner_text("#curves-said")
        accuracy = 100 * curves[-1]["right_accuracy"]
        assert f"Without it, {accuracy:.1f} % of the test images are right after 160 steps" in said

    def test_another_image(self, page):
        choose(page, "softmax-twice")
        self.checked(page)
        before = page.inner_text(".change >> nth=0")
        settled(page, lambda: page.click("#next"))
        until(
            page, "(before) => document.querySelector('.change')?.innerText !== before", arg=before
        )
        assert page.input_value("#mistake") == "softmax-twice"

    def test_by_keyboard(self, show):
        page = show().page
        page.focus("#tab-picture")
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.id") == "tab-lab"
        page.wait_for_selector("#checks li")
        page.focus("#mistake")
        page.keyboard.press("ArrowDown")
        assert page.input_value("#mistake") == "rows-columns-swapped"
        self.checked(page)
        page.focus("#tab-lab")
        page.keyboard.press("ArrowLeft")
        assert page.locator("#picture-view").is_visible()


class TestTabsAndLinks:
    def test_two_tabs(self, show, net):
        one, other = show().page, show().page
        before = shown(other)
        settled(one, lambda: one.click("#step"))
        settled(one, lambda: one.click("#next"))
        one.fill("#text", "conv2 relu pool flatten dense10")
        settled(one, lambda: one.click("#build"))
        assert shown(other) == before
        settled(other, lambda: other.click("#next"))
        assert shown(other)["network"] == before["network"]
        assert shown(one)["network"] != before["network"]

    def test_a_tab_that_is_reloaded_goes_on(self, show):
        page = show().page
        settled(page, lambda: page.click("#step"))
        page.wait_for_timeout(400)
        before, session = shown(page), page.evaluate("fullback.client.session")
        page.reload()
        page.wait_for_selector("html[data-ready]")
        assert page.evaluate("fullback.client.session") == session
        assert shown(page) == before

    def test_a_link_restores_the_state(self, show):
        page = show().page
        page.fill("#text", "conv2 relu pool flatten dense10")
        settled(page, lambda: page.click("#build"))
        page.fill("#epochs", "2")
        page.click("#train")
        until(page, "!fullback.training.watching && fullback.training.run?.finished")
        settled(page, lambda: page.click("#clear"))
        settled(page, lambda: draw(page, SEVEN))
        quiet(page)
        settled(page, lambda: page.select_option("#label", "3"))
        page.evaluate("fullback.view.select({ array: 'g:conv1.weight', index: [1, 0, 2, 2] })")
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        page.click("#link")
        until(page, "document.getElementById('link').textContent !== 'Copy link'")
        other = show(page.url).page
        assert other.evaluate("fullback.client.session") != page.evaluate("fullback.client.session")
        ours, theirs = shown(page), shown(other)
        assert ours.pop("image") == theirs.pop("image")
        assert ours == theirs
        assert other.evaluate("fullback.view.state") == page.evaluate("fullback.view.state")

    def test_a_link_into_the_lab(self, show):
        page = show().page
        page.click("#tab-lab")
        page.wait_for_selector("#checks li")
        choose(page, "relu-mask-missing")
        page.select_option("#place", "relu2")
        page.wait_for_timeout(400)
        other = show(page.url).page
        other.wait_for_selector("#checks li")
        assert other.locator("#lab-view").is_visible()
        assert other.input_value("#mistake") == "relu-mask-missing"
        assert other.input_value("#place") == "relu2"

    def test_a_link_of_an_earlier_run_of_the_server(self, show, server):
        """The token of the running one is known from its own tab."""
        page = show().page
        settled(page, lambda: page.click("#next"))
        page.wait_for_timeout(400)
        stale = page.url.replace(server.access.token, "an-earlier-one")
        other = page.context.new_page()
        other.goto(stale)
        other.wait_for_selector("html[data-ready]")
        assert other.inner_text("#origin") == page.inner_text("#origin")
        assert not other.locator("#problem").is_visible()

    @pytest.mark.parametrize("end", ["", "#token=wrong", "#token=wrong&state=%%%"])
    def test_without_the_token(self, server, visit, end):
        visited = visit(f"http://127.0.0.1:{server.port}/{end}")
        until(
            visited.page,
            "document.getElementById('problem').textContent.includes('open the address')",
        )
        assert not visited.page.locator("html[data-ready]").count()
        assert all("401" in problem for problem in visited.problems)
        visited.problems.clear()

    def test_a_damaged_link(self, show, server):
        page = show(f"{server.address}&state=nonsense").page
        assert page.inner_text("#problem").startswith("The link is damaged")
        state = base64.urlsafe_b64encode(json.dumps({"start": "0", "image": 7}).encode()).decode()
        page = show(f"{server.address}&state={state}").page
        assert page.inner_text("#problem").startswith("The link was not restored whole")
        page = show(f"{server.address}&state={'W10='}").page
        settled(page, lambda: page.click("#next"))

    def test_a_server_that_is_gone(self, net, data, visit):
        with explorer(net, data, port=0) as server:
            visited = visit(server.address)
            visited.page.wait_for_selector("html[data-ready]")
        visited.page.click("#next")
        visited.page.wait_for_selector("#problem:visible")
        assert "is fullback explore still running?" in visited.page.inner_text("#problem")
        visited.problems.clear()

    def test_inside_a_notebook(self, net, data, visit, tmp_path, monkeypatch):
        """A page of another origin on this machine may hold the explorer in a frame."""
        with net.explore(data, height=700) as server:
            (tmp_path / "notebook.html").write_text(
                f"<!doctype html><link rel=icon href='data:,'>{server._repr_html_()}"
            )

            class Quiet(http.server.SimpleHTTPRequestHandler):
                def __init__(self, *given):
                    super().__init__(*given, directory=tmp_path)

                def log_message(self, *given):
                    pass

            with http.server.HTTPServer(("127.0.0.1", 0), Quiet) as notebook:
                threading.Thread(target=notebook.serve_forever, daemon=True).start()
                address = f"http://localhost:{notebook.server_port}/notebook.html"
                visited = visit(address)
                frame = visited.page.frame_locator("iframe")
                frame.locator("html[data-ready]").wait_for()
                before = frame.locator("#origin").inner_text()
                frame.locator("#next").click()
                frame.locator(f"#origin:not(:text-is('{before}'))").wait_for()
                notebook.shutdown()

    def test_a_page_of_another_origin_cannot_frame_it(self, server, visit, tmp_path):
        (tmp_path / "evil.html").write_text(f"<iframe src='{server.address}'></iframe>")
        visited = visit((tmp_path / "evil.html").as_uri())
        visited.page.wait_for_timeout(300)
        assert any("frame-ancestors" in problem for problem in visited.problems)
        visited.problems.clear()


class TestScreens:
    def test_a_phone(self, show):
        page = show(**PHONE).page
        width = "document.documentElement.scrollWidth"
        assert page.evaluate(width) <= 360
        settled(page, lambda: page.tap("#step"))
        page.tap("#train")
        until(page, "!fullback.training.watching && fullback.training.run?.finished")
        assert page.evaluate(width) <= 360
        page.tap("#pick")
        page.wait_for_selector("#gallery-images button")
        assert page.evaluate(width) <= 360
        settled(page, lambda: page.tap("#gallery-images button >> nth=3"))
        page.tap("#tab-lab")
        page.wait_for_selector("#lab-view[data-state=done]", timeout=60000)
        assert page.evaluate(width) <= 360
        # what comes first on a phone: the image, and then what it does in the network
        order = page.evaluate(
            "['image-card', 'lab-view', 'training-card', 'network-card'].map("
            "(name) => document.getElementById(name).getBoundingClientRect().top)"
        )
        assert order == sorted(order)

    def test_many_channels(self, show):
        """64 filters a layer: usable, because they fold."""
        page = show().page
        page.fill("#text", "conv64 relu pool conv64 relu pool flatten dense10")
        settled(page, lambda: page.click("#build"))
        assert page.evaluate("fullback.view.picture.tiles.get('a:conv2').plan.shown.length") == 4
        page.locator("[data-fold='a:conv2']").click()
        assert page.evaluate("fullback.view.picture.tiles.get('a:conv2').plan.shown.length") == 64
        settled(page, lambda: page.click("#next"))

    @pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1400, "light")])
    def test_accessibility(self, show, scheme, width):
        from axe_playwright_python.sync_playwright import Axe

        def violations():
            found = Axe().run(page).response["violations"]
            return [(one["id"], [node["html"] for node in one["nodes"]][:3]) for one in found]

        page = show(color_scheme=scheme, viewport={"width": width, "height": 800}).page
        settled(page, lambda: page.click("#step"))
        page.fill("#epochs", "2")
        page.click("#train")
        until(page, "!fullback.training.watching && fullback.training.run?.finished")
        page.evaluate("fullback.view.select({ array: 'g:conv1.weight', index: [0, 0, 1, 1] })")
        assert violations() == []
        page.click("#tab-lab")
        page.wait_for_selector("#lab-view[data-state=done]", timeout=60000)
        page.click(".lab summary")
        assert violations() == []
        choose(page, "stride-not-dilated")
        assert violations() == []
        page.click("#pick")
        page.wait_for_selector("#gallery-images button")
        assert violations() == []
        page.keyboard.press("Escape")
        page.evaluate("fullback.fail('Something is wrong')")
        assert violations() == []
