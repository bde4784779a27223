"""What is in sight of the explorer and of a report, at every size, with any names and scales."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest

import fullback as fb
from fullback.report.page import explain
from support.networks import some_digits, trained

pytest.importorskip("starlette", reason="needs the extra explore")
pytest.importorskip("uvicorn", reason="needs the extra explore")

from fullback.explorer.launch import explorer

SIZES = [(1400, 900), (1920, 1080), (1024, 768), (768, 1024), (390, 844), (360, 740)]
HOSTILE = tuple(
    f"<img src=x onerror=alert({n})>'\"&\N{RIGHT-TO-LEFT OVERRIDE}\N{CAT} a name that is too long"
    for n in range(10)
)


@pytest.fixture(scope="module")
def data():
    return some_digits()


@pytest.fixture(scope="module")
def net(data):
    return trained(fb.zoo.question(seed=1), data, epochs=6)


def colours(rng):
    """Small images of three channels, in three classes."""
    x = rng.integers(0, 256, (30, 3, 12, 12), np.uint8)
    return fb.Dataset("photos", x, np.arange(30) % 3, x[:9], np.arange(9) % 3,
                      ("cat", "dog", "horse"))  # fmt: skip


@pytest.fixture(scope="module")
def server(net, data):
    with explorer(net, data, name="question", port=0) as server:
        yield server


@pytest.fixture
def show(server, visit):
    def open_page(address=None, width=1400, height=900, **options):
        visited = visit(
            address or server.address, viewport={"width": width, "height": height}, **options
        )
        visited.page.wait_for_function("() => window.fullback !== undefined")
        return visited.page

    return open_page


def settled(page, work):
    """Do something, and wait until the page shows another document."""
    before = page.evaluate_handle("fullback.document")
    work()
    page.wait_for_function("(before) => fullback.document !== before", arg=before)


def inside(page, selector):
    """Whether an element lies in the window, as a whole."""
    box = page.locator(selector).bounding_box()
    size = page.viewport_size
    return (
        box["x"] >= 0 and box["y"] >= 0 and box["x"] + box["width"] <= size["width"] + 1
        and box["y"] + box["height"] <= size["height"] + 1
    )  # fmt: skip


class TestInSight:
    def test_both_rows_and_the_panel(self, show):
        """At 1400 x 900: a click is seen to do something."""
        page = show()
        for selector in ("canvas[data-array='a:conv1']", "canvas[data-array='d:conv1']", "#panel"):
            assert inside(page, selector), selector
        assert page.inner_text(".panel h2").startswith("Gradient of conv2.weight, filter 0")
        values = page.evaluate("[...fullback.view.picture.model.array('g:conv2.weight').values]")
        shown = float(page.locator(".panel").get_attribute("data-value"))
        assert abs(shown) == max(map(abs, values))
        page.locator("canvas[data-array='d:pool1']").click(position={"x": 20, "y": 20})
        assert page.inner_text(".panel h2").startswith("Delta of pool1")
        assert inside(page, ".panel h2")

    @pytest.mark.parametrize(("width", "height"), SIZES)
    def test_nothing_runs_over(self, show, width, height):
        page = show(width=width, height=height)
        for card in ("training", "network"):
            page.evaluate("(card) => fullback.unfold(card, true)", card)
        assert page.evaluate("document.documentElement.scrollWidth") <= width

    def test_a_line_leads_to_the_panel_on_a_phone(self, show):
        page = show(width=390, height=844)
        page.locator("canvas[data-array='a:conv1']").click(position={"x": 20, "y": 20})
        peek = page.locator(".peek")
        peek.wait_for()
        assert "Output of conv1" in peek.inner_text()
        peek.click()
        peek.wait_for(state="hidden")
        assert inside(page, ".panel h2")

    def test_controls_fold_and_unfold(self, show):
        page = show()
        fold = page.locator("#fold-training")
        assert not page.locator("#epochs").is_visible()
        fold.press("Enter")
        assert page.locator("#epochs").is_visible()
        assert fold.get_attribute("aria-expanded") == "true"
        fold.click()
        assert not page.locator("#epochs").is_visible()
        settled(page, lambda: page.click("#step"))
        assert page.locator("#step-result").is_visible()


class TestSteps:
    def test_the_panel_follows(self, show):
        page = show()
        program = page.evaluate("fullback.document.program")
        page.click("[aria-label='First instruction']")
        for step in program:
            array = page.evaluate("fullback.view.state.cell.array")
            assert array in (*step["shows"], *step["from"]) or not {*step["shows"], *step["from"]}
            page.evaluate("document.activeElement.blur()")
            page.keyboard.press("ArrowRight")
        assert page.evaluate("fullback.view.state.step") == len(program)

    def test_there_is_no_way_on_at_the_end(self, show):
        page = show()
        on = page.locator("[aria-label='One instruction on']")
        assert on.get_attribute("aria-disabled") == "true"
        on.dispatch_event("click")
        count = len(page.evaluate("fullback.document.program"))
        assert page.evaluate("fullback.view.state.step") == count
        page.click("[aria-label='First instruction']")
        back = page.locator("[aria-label='One instruction back']")
        assert back.get_attribute("aria-disabled") == "true"
        assert on.get_attribute("aria-disabled") == "false"

    def test_another_program_is_shown_whole_everywhere(self, show):
        """First instruction, freeze, Reset, Train: text and picture are at the same instruction."""
        page = show()
        page.click("[aria-label='First instruction']")
        page.click("#fold-training")
        page.check("#freeze")
        settled(page, lambda: page.click("#reset"))
        page.fill("#epochs", "1")
        page.click("#train")
        page.wait_for_function("() => fullback.training.run?.finished")
        page.wait_for_function("() => !fullback.training.watching")
        assert page.inner_text(".sentence").startswith("The whole pass.")
        count = len(page.evaluate("fullback.document.program"))
        assert page.evaluate("[fullback.view.state.step, fullback.view.picture.at]") == [count] * 2
        assert page.locator(".pale").count() == 0


class TestImages:
    def test_an_upload_is_inverted_afterwards(self, show):
        from PIL import Image

        page = show()
        file = io.BytesIO()
        Image.fromarray(np.full((28, 28), 255, np.uint8)).save(file, "PNG")
        upload = {"name": "a.png", "mimeType": "image/png", "buffer": file.getvalue()}
        settled(page, lambda: page.set_input_files("#upload", upload))
        brightest = "Math.max(...fullback.pad.bytes)"
        assert page.evaluate(brightest) == 255
        settled(page, lambda: page.check("#invert"))
        assert page.evaluate(brightest) == 0
        settled(page, lambda: page.uncheck("#invert"))
        assert page.evaluate(brightest) == 255

    def test_where_it_is_sure_it_says_so_and_offers_another(self, visit, show, net, data):
        sure = net.copy()
        last = "dense2"
        for key in ("weight", "bias"):
            sure.parameters[f"{last}.{key}"] = net.parameters[f"{last}.{key}"] * 40
        with explorer(sure, data, name="sure", port=0) as server:
            page = show(server.address)
            right = int(np.flatnonzero(sure.predict_proba(data.x_test).max(axis=1) > 0.9999)[0])
            settled(page, lambda: page.evaluate("(n) => fullback.pick('test', n)", right))
            settled(page, lambda: page.select_option("#label", ""))
            assert page.inner_text("#sure").startswith("The network is already sure (")
            settled(page, lambda: page.click("#wrong"))
            assert page.locator("#sure").is_hidden()
            assert "missed" in page.locator("#answer").get_attribute("class")

    def test_colours(self, show):
        photos = colours(np.random.default_rng(0))
        net = fb.Network.parse("conv4 relu pool flatten dense3", (3, 12, 12), seed=0)
        with explorer(net, photos, name="photos", port=0) as server:
            page = show(server.address)
            index = page.evaluate("fullback.document.image.index")
            drawn = page.evaluate(
                """() => { const canvas = document.querySelector(".composite canvas");
                return [...canvas.getContext("2d").getImageData(0, 0, 12, 12).data]; }"""
            )
            pixels = np.array(drawn).reshape(12, 12, 4)[..., :3].transpose(2, 0, 1)
            np.testing.assert_array_equal(pixels, photos.x_test[index])
            assert page.evaluate("fullback.view.picture.tiles.get('a:input').letters") == "RGB"
            page.evaluate("fullback.view.select({ array: 'a:input', index: [1, 2, 3] })")
            assert "channel 1 (green)" in page.inner_text(".panel h2")
            assert page.inner_text("#predicted") in photos.class_names
            page.click("#fold-network")
            page.select_option("#examples", label="small")
            assert page.input_value("#text").endswith("dense3")

    def test_a_scale_that_is_not_known_leaves_the_pad_shut(self, show, data):
        x, test = (a.astype(np.float32) / 40 - 2.7 for a in (data.x_train, data.x_test))
        net = fb.Network.parse("flatten dense10", (1, 28, 28))
        fb.fit(net, x, data.y_train, epochs=1, verbose=False)
        with explorer(net, fb.Dataset("d", x, data.y_train, test, data.y_test), port=0) as server:
            page = show(server.address)
            assert "black and white is not known" in page.inner_text("#undrawn")
            for name in ("clear", "upload"):
                assert page.locator(f"#{name}").is_disabled()
            before = page.evaluate("[...fullback.pad.bytes]")
            assert min(before) == 0
            assert max(before) > 200
            page.locator("#pad").click(force=True)
            page.focus("#pad")
            page.keyboard.press("Space")
            assert page.evaluate("[...fullback.pad.bytes]") == before
            settled(page, lambda: page.click("#next"))


class TestNames:
    def named(self, net, names):
        named = net.copy()
        named.class_names = names
        return named

    @pytest.mark.parametrize("width", [1400, 390])
    def test_long_and_hostile_names(self, show, net, data, width):
        data = dataclasses.replace(data, class_names=HOSTILE)  # which go by name
        with explorer(self.named(net, HOSTILE), data, name=HOSTILE[0], port=0) as server:
            page = show(server.address, width=width)
            page.on("dialog", lambda dialog: pytest.fail(dialog.message))
            assert page.locator("img").count() == 0
            assert page.inner_text("#predicted") in HOSTILE
            bars = page.eval_on_selector_all(
                ".picture .bar", "(all) => all.map((one) => one.clientWidth)"
            )
            assert len(bars) == 10
            assert min(bars) > 40
            page.click("#pick")
            page.wait_for_selector("#gallery-images button")
            assert page.locator("img").count() == 0
            page.keyboard.press("Escape")
            assert page.evaluate("document.documentElement.scrollWidth") <= width

    def test_a_report(self, visit, net, data, tmp_path):
        explain(self.named(net, HOSTILE), data.x_test[0], data.y_test[0], tmp_path / "r.html",
                title="<b>a</b> \udc80")  # fmt: skip
        visited = visit((tmp_path / "r.html").as_uri())
        page = visited.page
        assert page.locator("img").count() == 0
        assert page.locator("h1 b").count() == 0
        page.click(".answer >> nth=2")
        assert page.inner_text(".panel h2").startswith(f"Probability of {HOSTILE[2]}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 1400

    def test_of_many_classes_the_likely_ones_are_listed(self, visit, tmp_path):
        net = fb.Network.parse("flatten dense100", (1, 5, 5), seed=0)
        explain(net, np.ones((1, 5, 5), np.float32), 77, tmp_path / "r.html")
        page = visit((tmp_path / "r.html").as_uri()).page
        assert page.locator(".answer").count() == 12
        assert page.locator(".answer.label").get_attribute("data-class") == "77"
        page.click("text=all 100")
        assert page.locator(".answer").count() == 100


class TestNumbers:
    def test_rounding_noise_is_shown_as_such(self, visit, tmp_path):
        """A bias before batch normalisation moves nothing: its gradient is 0, but for rounding."""
        net = fb.Network.parse("conv4 batchnorm relu flatten dense3", (1, 9, 9), seed=0)
        x = np.random.default_rng(0).random((1, 9, 9), np.float32)
        explain(net, x, 1, tmp_path / "r.html")
        page = visit((tmp_path / "r.html").as_uri()).page
        noisy = page.eval_on_selector_all(
            "figure:has(figcaption.noise)", "(all) => all.map((one) => one.dataset.array)"
        )
        assert noisy == ["g:conv1.bias"]
        page.evaluate("fullback.select({ array: 'g:conv1.bias', index: [2] })")
        assert "Rounding noise" in page.inner_text(".panel")
        page.evaluate("fullback.select({ array: 'g:conv1.weight', index: [2, 0, 1, 1] })")
        assert "Rounding noise" not in page.inner_text(".panel")

    def test_a_report_of_a_sure_network_says_so(self, visit, net, data, tmp_path):
        sure = net.copy()
        for key in ("weight", "bias"):
            sure.parameters[f"dense2.{key}"] = net.parameters[f"dense2.{key}"] * 40
        right = int(np.flatnonzero(sure.predict(data.x_test) == data.y_test)[0])
        explain(sure, data.x_test[right], data.y_test[right], tmp_path / "r.html")
        page = visit((tmp_path / "r.html").as_uri()).page
        assert "already sure" in page.inner_text("#sure")
        assert "Pick an image that it gets wrong." in page.inner_text("#sure")
        explain(net, data.x_test[0], 5, tmp_path / "other.html")
        page = visit((tmp_path / "other.html").as_uri()).page
        assert page.locator("#sure").is_hidden()

    def test_one_notation(self, show):
        page = show()
        written = page.evaluate(
            """async () => { const { number, brief, percent } = await import("./page/arrays.js");
            return [number(0.25), brief(0.25), brief(-0.25), number(-1.5e-7), percent(1e-9),
                percent(0.99999999), percent(0), percent(1), percent(0.123)]; }"""
        )
        minus, dot = "\N{MINUS SIGN}", "\N{MIDDLE DOT}"
        assert written == [
            "0.2500", "0.25", f"{minus}0.25", f"{minus}1.500{dot}10⁻⁷", "<0.1 %", ">99.9 %",
            "0.0 %", "100.0 %", "12.3 %",
        ]  # fmt: skip


class TestFilters:
    def test_another_network_while_the_picture_is_hidden(self, show):
        page = show()
        page.click("#tab-lab")
        page.wait_for_selector("#mistake option >> nth=3", state="attached")
        page.select_option("#mistake", "stride-not-dilated")
        settled(page, lambda: page.click("#other-network"))
        page.wait_for_function("() => fullback.lab.mistake?.ways.length > 0")
        page.click("#tab-picture")
        assert page.locator("canvas[data-array='d:conv1']").bounding_box()["height"] > 100

    def test_64_unfolded_filters_are_a_grid(self, show):
        page = show()
        page.click("#fold-network")
        page.fill("#text", "conv64 relu pool conv64 relu pool flatten dense10")
        settled(page, lambda: page.click("#build"))
        for array in ("p:conv1.weight", "a:conv1"):
            page.click(f"[data-fold='{array}']")
            width, height = page.evaluate("(id) => fullback.view.picture.tiles.get(id).size", array)
            assert height < 600
            assert 0.5 < width / height < 2
            assert (
                page.evaluate(
                    "(id) => fullback.view.picture.tiles.get(id).plan.shown.length", array
                )
                == 64
            )


class TestLinks:
    def test_a_link_of_another_run_asks_for_the_token(self, show, visit, server):
        page = show()
        settled(page, lambda: page.click("#next"))
        page.wait_for_timeout(400)
        origin = page.inner_text("#origin")
        visited = visit(page.url.replace(server.access.token, "of-another-run"))
        asking = visited.page
        asking.wait_for_selector("#ask")
        asking.fill("#token", "nonsense")
        asking.keyboard.press("Enter")
        asking.wait_for_timeout(300)
        assert asking.locator("#ask").is_visible()
        asking.fill("#token", server.address)
        asking.keyboard.press("Enter")
        asking.wait_for_selector("html[data-ready]")
        assert asking.inner_text("#origin") == origin
        assert asking.locator("#ask").is_hidden()
        assert all("401" in problem for problem in visited.problems)
        visited.problems.clear()

    def test_an_exported_notebook(self, visit, net, data, tmp_path):
        """Without the server there is the pass in place of an empty frame."""
        with net.explore(data, height=700) as server:
            (tmp_path / "notebook.html").write_text(
                f"<!doctype html><link rel=icon href='data:,'>{server._repr_html_()}"
            )
        visited = visit(Path(tmp_path, "notebook.html").as_uri())
        visited.page.wait_for_selector("details[open]")
        assert visited.page.locator("iframe").count() == 0
        assert "run the cell again" in visited.page.inner_text("details")
        assert visited.page.locator("details img").count() > 20
        visited.problems.clear()
