"""The pages whose Python is run: it prints what they show, and the catalogue is whole."""

import contextlib
import io
import re
import sys
import warnings
from pathlib import Path

import pytest

import fullback
from fullback.check.mistakes import MISTAKES
from fullback.check.mistakes.forward import FORWARD_MISTAKES
from support.command import run

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "diagnose.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the tests are not in a checkout")


def without_numbers(text):
    """Roundings differ from machine to machine, and so does the padding behind them."""
    return re.sub(r"[\d.]+(e-\d+)?( %)?|exactly", "#", " ".join(text.split()))


def test_what_the_page_shows_is_what_is_printed(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    names = {}
    shown = 0
    blocks = re.findall(r"```(python|text)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    printed = ""
    for kind, block in blocks:
        if kind == "text":
            assert without_numbers(block) == without_numbers(printed)
            shown += 1
        elif "dW1" not in block and "dy.mean" not in block:  # pieces of somebody's program
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(block, PAGE, "exec"), names)
            printed = out.getvalue()
    assert shown == 7


def test_training_md_prints_what_it_shows(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    names, printed, shown = {}, "", 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fullback.DeadUnitWarning)
        for kind, block in re.findall(r"```(python|text)\n(.*?)```", text, re.DOTALL):
            if kind == "text":
                assert block == printed
                shown += 1
            else:
                with contextlib.redirect_stdout(io.StringIO()) as out:
                    exec(compile(block, "training.md", "exec"), names)
                printed = out.getvalue()
    assert shown == 5


def test_your_program_md_prints_what_it_shows(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples")
    monkeypatch.delitem(sys.modules, "by_hand", raising=False)
    text = (ROOT / "docs" / "your-program.md").read_text(encoding="utf-8")
    names, printed, shown = {"__name__": "script"}, "", 0
    for kind, block in re.findall(r"```(python|text)\n(.*?)```", text, re.DOTALL):
        if kind == "text":
            assert block == printed
            shown += 1
        else:
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(block, "your-program.md", "exec"), names)
            printed = out.getvalue()
    assert shown == 5


def test_data_md_prints_what_it_shows(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(block, "data.md", "exec"), {})
        shown = re.findall(r"print\(.*\)  # (.*)", block)
        assert out.getvalue().splitlines() == shown


def test_command_line_md_runs(capsys):
    text = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fullback.DeadUnitWarning)
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
            exec(compile(block, "command-line.md", "exec"), {})
    assert "Threshold(label=1, value=" in capsys.readouterr().out


def test_serving_md_prints_what_it_shows():
    pytest.importorskip("httptools", reason="needs the extra serve")
    pytest.importorskip("orjson", reason="needs the extra serve")
    from fullback.serve.launch import service

    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    ((asks, shown),) = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL)
    named = [("question", str(ROOT / "examples" / "question.safetensors"))]
    with service(named, port=0) as server, contextlib.redirect_stdout(io.StringIO()) as out:
        asks = asks.replace("http://127.0.0.1:8018/", server.address)
        exec(compile(asks, "serving.md", "exec"), {})
    assert without_numbers(out.getvalue()) == without_numbers(shown)
    assert [line[0] for line in out.getvalue().splitlines()] == [
        line[0] for line in shown.splitlines()
    ]


def test_sweeps_md_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
    files = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert len(files) == 2
    for number, file in enumerate(files):
        Path(f"{number}.toml").write_text(file, encoding="utf-8")
        assert run("sweep", f"{number}.toml").code == 0
    assert {path.name for path in Path("0").iterdir() if path.name[:6] != "trial-"} - {".lock"} == {
        *("results.csv", "sweep.json", "plots")
    }
    rounds = [path.name.partition("-")[2] for path in Path("1").glob("trial-*")]
    assert [sum(name.endswith(f"-{n}ep") for name in rounds) for n in (2, 6, 18)] == [9, 3, 1]


def test_the_search_on_dask_of_sweeps_md_is_the_example():
    text = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
    example = (ROOT / "examples" / "dask_search.py").read_text(encoding="utf-8")
    (body,) = re.findall(r"def fit_on_dask.*?:\n(.*?)```", text, re.DOTALL)
    assert body in example


def test_the_lines_of_the_example_are_in_it():
    example = (ROOT / "examples" / "by_hand.py").read_text(encoding="utf-8")
    (lines,) = re.findall(
        r"```python\n(def conv_backward.*?dy\.mean.*?)```",
        PAGE.read_text(encoding="utf-8"),
        re.DOTALL,
    )
    assert lines in example


def test_the_catalogue_of_the_page_is_the_catalogue():
    rows = re.findall(
        r"^\| `([a-z0-9-]+)` \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    every = (*FORWARD_MISTAKES.values(), *MISTAKES.values())
    assert rows == [(mistake.id, mistake.sentence) for mistake in every]


def test_no_page_is_unfinished():
    for page in (ROOT / "docs").glob("*.md"):
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert not re.findall(r"^[A-Z_]{4,}$", text, re.MULTILINE), page


def test_links_lead_somewhere():
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    links = [
        (page, link)
        for page in pages
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
        if "://" not in link
    ]
    assert len(links) > 80
    assert [link for page, link in links if not (page.parent / link).exists()] == []


def test_the_files_that_contributors_are_sent_to_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    paths = re.findall(r"`((?:src|tests|docs)/[\w./]*)`", text)
    assert len(paths) > 12
    assert [path for path in paths if not (ROOT / path).exists()] == []
