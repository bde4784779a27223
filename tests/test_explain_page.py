"""The report in a browser: every number, the picture, the panel, the keyboard."""

import json
import re

import numpy as np
import pytest

import fullback as fb
from fullback.report.document import document
from fullback.report.page import SCRIPTS, explain, page_file, report
from support.pages import click, terms

EVERY = (
    "normalize conv4(stride=2) batchnorm tanh avgpool(padding=1) conv4(groups=2, dilation=2) "
    "leakyrelu pool3(stride=2, padding=1) sigmoid dropout flatten dense5 relu dense3"
)
NETWORKS = {
    "question": fb.zoo.question(seed=0),
    "small": fb.zoo.small(seed=0),
    "every": fb.Network.parse(EVERY, (2, 17, 15), seed=0),
    "valid": fb.Network.parse(
        "conv3(kernel_size=2x5, padding=valid, bias=false) relu avgpool2(stride=1) conv2 "
        "globalavgpool dense3",
        (2, 9, 9),
        loss=fb.SoftmaxCrossEntropy(0.1),
        seed=0,
    ),
    "squared": fb.Network.parse("dense4 relu dense2", (6,), loss=fb.MeanSquaredError(), seed=0),
}
NETWORKS["every"].statistics["normalize1.deviation"] = [0.5, 2.0]
NETWORKS["every"].statistics["normalize1.mean"] = [0.25, 0.5]
RNG = np.random.default_rng(0)


def image(net):
    """An image with a flat background, as pooling needs for ties."""
    x = np.random.default_rng(1).random(net.input_shape, np.float32)
    return np.where(x < 0.4, 0, x).astype(np.float32)


def answer(net):
    return 1 if net.loss.classifies else [0.5, -1.0]


class Arrays:
    """A trace's arrays by the names that the page gives them."""

    def __init__(self, net):
        trace = net.trace(image(net)[None], np.asarray(answer(net))[None])
        self.every = {
            **{f"a:{name}": value[0] for name, value in trace.activations.items()},
            **{f"d:{name}": value[0] for name, value in trace.deltas.items()},
            **{f"p:{name}": value for name, value in net.parameters.items()},
            **{f"g:{name}": value for name, value in trace.gradients.items()},
        }
        if net.loss.classifies:
            self.every["probabilities"] = trace.probabilities[0]

    def value(self, key):
        array, _, index = key.partition("/")
        return float(self.every[array][tuple(map(int, index.split(",")))])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("reports")


@pytest.fixture
def show(folder, visit):
    """Open the report of a network, of the ones above."""

    def open_report(name, place="", **options):
        path = folder / f"{name}.html"
        if not path.exists():
            net = NETWORKS[name]
            explain(net, image(net), answer(net), path)
        visited = visit(f"{path.as_uri()}{place}", **options)
        visited.page.wait_for_function("window.fullback !== undefined")
        return visited.page

    return open_report


def test_one_file_that_asks_for_nothing_else(folder, visit):
    net = NETWORKS["question"]
    path = folder / "alone.html"
    explain(net, image(net), 1, path, title="A digit <b>& more")
    visited = visit(path.as_uri())
    assert visited.page.title() == "A digit <b>& more"
    assert visited.requests == [path.as_uri(), "data:,"] or visited.requests == [path.as_uri()]
    text = path.read_text(encoding="utf-8")
    assert "http" not in re.sub(r"http-equiv|http://www.w3.org/\S*", "", text)
    assert [entry.name for entry in path.parent.glob("alone*")] == ["alone.html"]


def test_the_pages_files_are_small():
    files = [*(f"{name}.js" for name in SCRIPTS), "style.css", "report.html"]
    assert sum(len(page_file(name).encode()) for name in files) < 150_000


@pytest.mark.parametrize("name", NETWORKS)
def test_the_sum_of_the_terms_is_the_number(show, name):
    """Of every array, some cells: each term's cells are the trace's, and the formula is right."""
    net, page = NETWORKS[name], show(name)
    arrays = Arrays(net)
    cells = []
    for array, values in arrays.every.items():
        for place in RNG.choice(values.size, min(values.size, 15), replace=False):
            index = [int(n) for n in np.unravel_index(place, values.shape)]
            cells.append({"array": array, "index": index})
    origins = page.evaluate(
        """(cells) => cells.map((cell) => {
            const { value, sum, terms, formula, rule, lit } = fullback.origin(cell);
            return { value, sum, rule, lit, terms: terms.map(({ factors, product }) => ({
                product, cells: factors.filter((one) => one.cell).map((one) =>
                    [one.cell.array + "/" + one.cell.index.join(), one.value, one.label]),
            }))};
        })""",
        cells,
    )
    for cell, origin in zip(cells, origins, strict=True):
        key = f"{cell['array']}/{','.join(map(str, cell['index']))}"
        assert origin["value"] == arrays.value(key), key
        assert "no formula" not in origin["rule"], key
        for term in origin["terms"]:
            for name_of, value, label in term["cells"]:
                if name_of.split("/")[0] in arrays.every and not label.startswith("z of"):
                    assert value == arrays.value(name_of), (key, name_of)
        if origin["sum"]:
            products = [term["product"] for term in origin["terms"]]
            scale = sum(map(abs, products)) + 1e-30
            # float32 rounds each product and each sum, in some order
            assert abs(sum(products) - origin["value"]) <= 4e-6 * scale, key


def written_index(formula, array, **values):
    """Evaluate the indices that a formula writes for an array, like x[c, 2p + r − 1, q + s]."""
    (indices,) = re.findall(rf"{array}\[\w, (.*?)\](?: / |,|$)", formula)
    made = []
    for index in indices.split(", "):
        python = re.sub(r"(\d)([a-z])", r"\1*\2", index.replace("\N{MINUS SIGN}", "-"))
        made.append(eval(python, {}, values))
    return made


@pytest.mark.parametrize("name", NETWORKS)
def test_the_indices_that_a_formula_writes_are_those_of_its_terms(show, name):
    """Of filter gradients and of the deltas below convolutions, with padding, stride, dilation."""
    net, page = NETWORKS[name], show(name)
    looked_at = 0
    previous = ("input", *net.names)
    for before, own, layer in zip(previous, net.names, net.layers, strict=False):
        if layer.kind != "conv":
            continue
        trace = net.trace(image(net)[None], [answer(net)])
        for array, shape in (
            (f"g:{own}.weight", net.parameters[f"{own}.weight"].shape),
            (f"d:{before}", trace.deltas[before].shape[1:]),
        ):
            for _ in range(8):
                index = [int(RNG.integers(n)) for n in shape]
                origin = page.evaluate(
                    """(cell) => { const { formula, terms } = fullback.origin(cell);
                    return { formula, terms: terms.map(({ factors }) => factors
                        .filter((one) => one.cell).map((one) => one.cell)) }; }""",
                    {"array": array, "index": index},
                )
                for cells in origin["terms"]:
                    met = {cell["array"]: cell["index"] for cell in cells}
                    if len(met) < 2:  # in the padding
                        continue
                    looked_at += 1
                    if array.startswith("g:"):
                        (_, p, q), (_, i, j) = met[f"d:{own}"], met[f"a:{before}"]
                        r, s = index[2:]
                        wanted = written_index(origin["formula"], "x", p=p, q=q, r=r, s=s)
                        assert wanted == [i, j], (array, index, origin["formula"])
                    else:
                        (_, p, q), (_, _, r, s) = met[f"d:{own}"], met[f"p:{own}.weight"]
                        _, i, j = index
                        wanted = written_index(origin["formula"], "dy", i=i, j=j, r=r, s=s)
                        assert wanted == [p, q], (array, index, origin["formula"])
    assert looked_at > 20 or all(layer.kind != "conv" for layer in net.layers)


def test_click_a_filter_gradient(show):
    """Every number of the panel is the trace's: the window, the deltas, the running sum."""
    net, page = NETWORKS["question"], show("question")
    trace = net.trace(image(net)[None], [1])
    click(page, "g:conv1.weight", [0, 0, 2, 1])
    panel = page.locator(".panel")
    expected = float(trace.gradients["conv1.weight"][0, 0, 2, 1])
    assert panel.get_attribute("data-cell") == "g:conv1.weight/0,0,2,1"
    assert float(panel.get_attribute("data-value")) == expected
    assert "Gradient of conv1.weight, filter 0, row 2, column 1" in panel.inner_text()
    page.check(".panel .zeros")
    page.click(".panel .controls .more")
    rows = terms(page)
    x = np.pad(trace.activations["input"][0, 0].astype(float), 1)[2:30, 1:29]
    dy = trace.deltas["conv1"][0, 0].astype(float)
    assert len(rows) == 28 * 28
    products = (x * dy).ravel()
    np.testing.assert_array_equal([row["factors"][0][1] for row in rows], x.ravel())
    np.testing.assert_array_equal([row["factors"][1][1] for row in rows], dy.ravel())
    np.testing.assert_array_equal([row["product"] for row in rows], products)
    np.testing.assert_allclose([row["running"] for row in rows], products.cumsum(), rtol=1e-12)
    np.testing.assert_allclose(rows[-1]["running"], expected, rtol=1e-4)
    first = rows[0]["factors"]
    assert first[1][0] == "d:conv1/0,0,0"
    assert rows[-1]["factors"][0] == [None, 0.0]  # the padding below and to the right
    assert "0 (padding)" in page.locator(".panel tbody tr").last.inner_text()


def test_click_a_delta_below_a_convolution(show):
    """The full convolution: the filter turned by 180 degrees, over a delta with zeros around."""
    net, page = NETWORKS["question"], show("question")
    trace = net.trace(image(net)[None], [1])
    click(page, "d:pool1", [0, 0, 5])
    assert "full convolution" in page.locator(".panel .rule").inner_text()
    assert "turned by 180°" in page.locator(".panel .equations").inner_text()
    page.check(".panel .zeros")
    rows = terms(page)
    w = net.parameters["conv2.weight"][0, 0, ::-1, ::-1]
    dy = np.pad(trace.deltas["conv2"][0, 0], 1)[0:3, 5:8]
    np.testing.assert_array_equal([row["factors"][0][1] for row in rows], dy.ravel())
    np.testing.assert_array_equal([row["factors"][1][1] for row in rows], w.ravel())
    assert [row["factors"][0][0] for row in rows[:3]] == [None] * 3
    np.testing.assert_allclose(
        rows[-1]["running"], trace.deltas["pool1"][0, 0, 0, 5], rtol=1e-4, atol=1e-9
    )


def test_follow_the_error_from_the_loss_to_a_filter(show):
    """Each number of the panel leads to where it comes from in turn."""
    net, page = NETWORKS["question"], show("question")
    trace = net.trace(image(net)[None], [1])
    page.click(".answer[data-class='1']")
    assert page.locator(".panel h2").inner_text().startswith("Probability of 1 =")
    page.click(".panel .link .reference")
    assert "p \N{MINUS SIGN} y" in page.locator(".panel .rule").inner_text()
    rows = terms(page)
    assert [row["factors"][-1] for row in rows] == [
        ["probabilities/1", float(trace.probabilities[0, 1])],
        ["target/1", 1.0],
    ]
    click(page, "d:relu3", [3])
    rows = terms(page)
    assert len(rows) == 10
    assert rows[4]["factors"][1] == [
        "p:dense2.weight/4,3",
        float(net.parameters["dense2.weight"][4, 3]),
    ]
    rows_with = page.locator(".panel tbody .reference")
    rows_with.first.click()
    assert page.locator(".panel").get_attribute("data-cell") == "d:dense2/0"
    won = int(np.flatnonzero(trace.deltas["relu2"][0, 0])[0])
    click(page, "d:relu2", [0, won // 14, won % 14])
    assert "won by this cell" in page.locator(".panel .equations").inner_text()
    click(page, "d:conv2", [0, won // 14, won % 14])
    assert "mask" in page.locator(".panel .rule").inner_text()


def test_a_cell_that_lost_its_window_says_who_won(show):
    net, page = NETWORKS["question"], show("question")
    delta = net.trace(image(net)[None], [1]).deltas["relu1"][0, 0]
    lost = int(np.flatnonzero(delta == 0)[-1])
    click(page, "d:relu1", [0, lost // 28, lost % 28])
    assert "won by another cell" in page.locator(".panel .equations").inner_text()
    page.click(".panel .link .reference")
    assert "won by this cell" in page.locator(".panel .equations").inner_text()


def test_what_a_number_is_made_of_lights_up(show):
    page = show("question", "#cell=g:conv2.weight/0,0,0,0")
    marks = page.evaluate(
        "Object.fromEntries([...fullback.picture.tiles].map(([id, { marks }]) => [id, marks]))"
    )
    assert marks["g:conv2.weight"]["selected"] == [0, 0, 0, 0]
    assert marks["d:conv2"]["boxes"] == [{"from": [0, 0, 0], "to": [0, 13, 13]}]
    assert marks["a:pool1"]["boxes"] == [{"from": [0, 0, 0], "to": [0, 12, 12]}]
    assert not marks["a:conv1"]["boxes"]
    assert not marks["a:conv1"]["lit"]
    page.hover(".panel tbody tr:nth-child(2)")
    bright = page.evaluate("fullback.picture.tiles.get('d:conv2').marks.bright")
    cell = page.locator(".panel tbody tr:nth-child(2) .reference").nth(1).get_attribute("data-cell")
    assert bright == [[int(n) for n in cell.split("/")[1].split(",")]]


def test_step_through_the_program_by_keyboard(show):
    net, page = NETWORKS["question"], show("question")
    steps = document(net, image(net), 1)["program"]
    page.keyboard.press("Home")
    shown = {f"p:{name}" for name in net.parameters}
    for n, step in enumerate(steps):
        sentence = page.locator(".stepper .sentence").inner_text()
        where = f"Instruction {n + 1} of {len(steps)}, {step['pass']}."
        assert sentence == f"{where} {step['sentence']}"
        here = page.locator(".listing [aria-current]")
        assert here.count() == 1
        assert here.locator("code").inner_text() == step["text"]
        box, lines = here.bounding_box(), page.locator(".listing .lines").bounding_box()
        assert lines["y"] <= box["y"] < lines["y"] + lines["height"]
        shown |= {*step["shows"]}
        written = page.eval_on_selector_all(
            ".written[data-array]", "(all) => all.map((one) => one.dataset.array)"
        )
        assert {*written} == {id_ for id_ in step["shows"] if ":" in id_}
        clear = page.eval_on_selector_all(
            ".array:not(.pale)", "(all) => all.map((one) => one.dataset.array)"
        )
        assert {*clear} == {id_ for id_ in shown if ":" in id_}
        page.keyboard.press("ArrowRight")
    assert page.locator(".stepper .sentence").inner_text().startswith("The whole pass.")
    assert page.locator(".pale").count() == 0
    page.keyboard.press("ArrowLeft")
    assert page.locator("input[type=range]").input_value() == str(len(steps) - 1)
    page.focus("input[type=range]")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("fullback.state.step") == len(steps) - 2
    page.click(".head .name >> text=pool2")
    assert "conv3x3_pool(pool1)" in page.locator(".listing [aria-current]").inner_text()


def test_choose_cells_by_keyboard(show):
    page = show("small")
    cell = lambda: page.evaluate("fullback.state.cell")  # noqa: E731
    page.focus("canvas[data-array='d:pool1']")
    page.keyboard.press("Enter")
    assert cell() == {"array": "d:pool1", "index": [0, 0, 0]}
    for key, index in (
        ("ArrowRight", [0, 0, 1]),
        ("ArrowDown", [0, 1, 1]),
        ("PageDown", [1, 1, 1]),
        ("ArrowUp", [1, 0, 1]),
        ("ArrowUp", [0, 13, 1]),
        ("ArrowLeft", [0, 13, 0]),
        ("ArrowLeft", [0, 13, 0]),
    ):
        page.keyboard.press(key)
        assert cell()["index"] == index, key
    assert "channel 0, row 13, column 0" in page.locator(".spoken").inner_text()
    page.click(".panel [data-move=up]")
    assert cell()["index"] == [0, 12, 0]
    assert page.evaluate("document.activeElement.dataset.move") == "up"
    page.keyboard.press("Escape")
    assert cell() is None


def test_channels_fold_and_unfold(show):
    page = show("small")
    tiles = "fullback.picture.tiles.get('d:conv2').plan.shown.length"
    assert page.evaluate(tiles) == 4
    fold = page.locator("[data-fold='a:conv2']")
    assert fold.get_attribute("aria-expanded") == "false"
    fold.click()
    assert page.evaluate(tiles) == 16
    assert fold.get_attribute("aria-expanded") == "true"
    fold.click()
    assert page.evaluate(tiles) == 4
    click(page, "g:conv2.weight", [15, 7, 2, 2])  # which is folded away at first
    assert page.locator(".panel").get_attribute("data-cell") == "g:conv2.weight/15,7,2,2"


def test_what_a_cell_is_made_of_is_seen_though_folded(show):
    page = show("small")
    page.keyboard.press("Escape")
    page.evaluate("fullback.select(null)")
    shown = "(id) => fullback.picture.tiles.get(id).plan.shown"
    assert page.evaluate(shown, "a:pool1") == [0, 1, 2, 3]
    page.evaluate("fullback.select({ array: 'g:conv2.weight', index: [15, 7, 2, 2] })")
    assert page.evaluate(shown, "g:conv2.weight") == [8 * k + 7 for k in (0, 1, 2, 15)]
    assert page.evaluate(shown, "p:conv2.weight") == [8 * k + 7 for k in (0, 1, 2, 15)]
    assert page.evaluate(shown, "a:pool1") == page.evaluate(shown, "d:pool1") == [0, 1, 2, 7]
    assert page.evaluate(shown, "d:conv2") == [0, 1, 2, 15]
    caption = page.locator("figure[data-array='d:conv2'] figcaption")
    assert caption.inner_text().startswith("0, 1, 2, 15\n")
    page.evaluate("fullback.select(null)")
    assert page.evaluate(shown, "d:conv2") == [0, 1, 2, 3]


def test_the_address_keeps_the_place(show):
    page = show("question", "#step=19&cell=d%3Apool1%2F0%2C2%2C3")
    assert page.evaluate("fullback.state") == {
        "step": 19,
        "cell": {"array": "d:pool1", "index": [0, 2, 3]},
    }
    page.keyboard.press("ArrowRight")
    cell = page.evaluate("fullback.state.cell")
    place = "%2C".join(map(str, cell["index"]))
    assert page.url.endswith(f"#step=20&cell={cell['array'].replace(':', '%3A')}%2F{place}")
    for nonsense in ("#step=x&cell=y", "#cell=d:pool1/99,0,0", "#cell="):
        page = show("question", nonsense)
        assert page.evaluate("fullback.state.cell.array") == "g:conv2.weight"
    assert show("question", "#step=-5").evaluate("fullback.state.step") == 0


def test_another_document_of_the_same_network(show):
    """What a live page does: the numbers change in place, the chosen cell stays."""
    net, page = NETWORKS["question"], show("question", "#cell=a:conv1/0,3,3")
    other = document(net, image(net)[:, ::-1], 2)
    page.evaluate("(text) => fullback.update(JSON.parse(text))", json.dumps(other))
    trace = net.trace(image(net)[:, ::-1][None], [2])
    value = float(page.locator(".panel").get_attribute("data-value"))
    assert value == float(trace.activations["conv1"][0, 0, 3, 3])
    shares = page.eval_on_selector_all(".answer", "(all) => all.map((one) => +one.dataset.value)")
    np.testing.assert_array_equal(shares, trace.probabilities[0])
    assert page.locator(".answer.label").get_attribute("data-class") == "2"
    small = NETWORKS["small"]
    another = document(small, image(small), 0)
    page.evaluate("(text) => fullback.update(JSON.parse(text))", json.dumps(another))
    assert page.evaluate("fullback.state.step") == len(another["program"])
    assert page.evaluate("fullback.state.cell.array") == "g:conv2.weight"
    assert page.locator("canvas[data-array='a:conv1']").count() == 1


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1400, "dark")])
def test_accessibility(show, scheme, width):
    from axe_playwright_python.sync_playwright import Axe

    page = show(
        "small",
        "#cell=g:conv1.weight/0,0,1,1",
        color_scheme=scheme,
        viewport={"width": width, "height": 800},
    )
    found = Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]][:3]) for one in found] == []
    page.keyboard.press("Home")
    found = Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]][:3]) for one in found] == []


def test_a_phone(show):
    page = show("question", viewport={"width": 360, "height": 740}, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator("canvas[data-array='d:pool2']").scroll_into_view_if_needed()
    spot = page.evaluate("fullback.picture.place({ array: 'd:pool2', index: [0, 3, 3] })")
    page.touchscreen.tap(spot["x"], spot["y"])
    assert page.locator(".panel").get_attribute("data-cell") == "d:pool2/0,3,3"
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_numbers_that_are_not_finite(folder, visit):
    net = fb.Network.parse("conv1 relu flatten dense3", (1, 4, 4), seed=0)
    net.parameters["dense1.weight"] = np.full((3, 16), 1e38)
    path = folder / "infinite.html"
    explain(net, np.full((1, 4, 4), 1e3, np.float32), 0, path)
    page = visit(path.as_uri()).page
    assert "not finite" in page.locator(".verdict").inner_text()
    page.evaluate("fullback.select({ array: 'a:dense1', index: [0] })")
    assert "∞" in page.locator(".panel .value").inner_text()


def test_many_filters_stay_usable(folder, visit):
    net = fb.Network.parse(
        "conv64 relu pool conv64 relu pool flatten dense64 relu dense10", (1, 28, 28)
    )
    path = folder / "many.html"
    explain(net, image(net), 0, path)
    page = visit(path.as_uri()).page
    took = page.evaluate(
        """() => {
            const start = performance.now();
            fullback.select({ array: "d:pool1", index: [0, 3, 3] });
            fullback.step(20);
            return performance.now() - start;
        }"""
    )
    assert took < 1000  # about 100 on a machine that has nothing else to do
    page.click("[data-fold='p:conv2.weight']")
    assert (
        page.evaluate("fullback.picture.tiles.get('p:conv2.weight').plan.shown.length") == 64 * 64
    )


def test_a_layer_of_somebodys_own(folder, visit):
    class Half(fb.ReLU):
        kind = "half"

        def forward(self, x, parameters, *, training=False, rng_key=0):
            return x / 2, None

        def backward(self, dy, kept, parameters):
            return dy / 2, {}

    net = fb.Network([fb.Flatten(), Half(), fb.Dense(3)], (1, 2, 2))
    path = folder / "own.html"
    explain(net, np.ones((1, 2, 2), np.float32), 0, path)
    page = visit(path.as_uri()).page
    for array in ("a:half1", "d:flatten1"):
        page.evaluate("(array) => fullback.select({ array, index: [1] })", array)
        assert "half1 is a layer that this page has no formula for" in page.inner_text(".panel")


class TestFiles:
    def test_is_written_whole_or_not_at_all(self, tmp_path):
        net = NETWORKS["question"]
        path = tmp_path / "report.html"
        path.write_text("before")
        with pytest.raises(fb.ShapeError):
            explain(net, np.zeros((2, 1, 28, 28)), 0, path)
        assert path.read_text() == "before"
        with pytest.raises(fb.InputError, match="does not exist"):
            explain(net, image(net), 0, tmp_path / "nowhere" / "report.html")

    def test_text_of_a_document_cannot_end_its_script(self):
        net = fb.Network.parse("dense2", (3,))
        made = report(document(net, np.zeros(3), 0, classes=["</script>", "{{title}} & <!--"]))
        assert made.count("</script>") == 2
        (data,) = re.findall(r'id="document">(.*?)</script>', made, re.DOTALL)
        assert json.loads(data)["classes"] == ["</script>", "{{title}} & <!--"]

    def test_the_joined_script_has_no_imports_left(self):
        made = report(document(NETWORKS["squared"], np.zeros(6), [0, 0]))
        assert not re.search(r"^(import|export) ", made, re.MULTILINE)
        assert "{{" not in made.partition("</style>")[0]
