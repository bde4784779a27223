"""docs/answer.md and docs/explain.md: their Python runs and prints what the pages show."""

import ast
import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
ANSWER, EXPLAIN = ROOT / "docs" / "answer.md", ROOT / "docs" / "explain.md"
NUMBER = re.compile(r"-?\d+\.?\d*(?:e-?\d+)?")

pytestmark = pytest.mark.skipif(not ANSWER.exists(), reason="the tests are not in a checkout")


def blocks(page, *kinds):
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```({'|'.join(kinds)})\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def numbers(text):
    return [float(number) for number in NUMBER.findall(text)]


def test_the_answers_numbers(monkeypatch):
    """Roundings differ from machine to machine, by less than the last digit that is shown."""
    monkeypatch.chdir(ROOT)
    names, printed, shown = {}, "", 0
    options = np.get_printoptions()
    try:
        for kind, block in blocks(ANSWER, "python", "text"):
            if kind == "python":
                with contextlib.redirect_stdout(io.StringIO()) as out:
                    exec(compile(block, ANSWER, "exec"), names)
                printed = out.getvalue()
            else:
                assert NUMBER.sub("", block).split() == NUMBER.sub("", printed).split()
                np.testing.assert_allclose(numbers(printed), numbers(block), atol=2e-4)
                shown += 1
    finally:
        np.set_printoptions(**options)
    assert shown == 7


def test_the_answer_has_fifteen_lines():
    (code,) = (block for _, block in blocks(ANSWER, "python") if "def backward" in block)
    functions = [node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)]
    lines = [ast.get_source_segment(code, node).splitlines() for node in functions]
    assert sum(map(len, lines)) == 15
    assert max(len(line) for own in lines for line in own) <= 101


def test_the_python_of_explain(tmp_path, monkeypatch):
    names = {}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for _, block in blocks(EXPLAIN, "python"):
        exec(compile(block, EXPLAIN, "exec"), names)
    assert (tmp_path / "report.html").stat().st_size > 50_000


@pytest.mark.parametrize("page", [ANSWER, EXPLAIN])
def test_links_and_pictures_are_there(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), target
