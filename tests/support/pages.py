"""What tests of pages do in a browser."""


def click(page, array, index):
    """Press the mouse on a cell of the picture."""
    cell = {"array": array, "index": index}
    page.evaluate("(cell) => fullback.picture.place(cell)", cell)
    page.evaluate(
        "(array) => document.querySelector(`canvas[data-array='${array}']`)"
        ".scrollIntoView({ inline: 'center', block: 'center' })",
        array,
    )
    spot = page.evaluate("(cell) => fullback.picture.place(cell)", cell)
    page.mouse.click(spot["x"], spot["y"])


def terms(page):
    """The rows of the panel's table: values and cells of the factors, product, running sum."""
    return page.eval_on_selector_all(
        ".panel tbody tr",
        """(rows) => rows.map((row) => ({
            factors: [...row.querySelectorAll(".reference, .padding, .constant")].map((one) =>
                [one.dataset.cell ?? null, Number(one.dataset.value)]),
            product: Number(row.querySelector(".product").dataset.value),
            running: Number(row.querySelector(".running").dataset.value),
        }))""",
    )
