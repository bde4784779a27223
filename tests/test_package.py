"""The package as a whole: its public names, which way imports point, the README, start-up."""

import ast
import importlib
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import fullback

SOURCE = Path(fullback.__path__[0])
README = Path(__file__).parent.parent / "README.md"

PUBLIC = """
    AvgPool2D BatchNorm2D Conv2D Dense Dropout Flatten GlobalAvgPool2D LeakyReLU MaxPool2D Normalize
    ReLU Sigmoid Tanh
    BinaryCrossEntropy MeanSquaredError SoftmaxCrossEntropy
    Network Threshold Trace zoo
    check_gradients check_layer diagnose diagnose_program explain probe
    Diagnosis Finding GradientCheck LayerCheck
    SGD Adam AdamW Augment Callback EarlyStopping Epoch History find_rate fit schedules
    CNNClassifier CNNRegressor load_estimator
    Dataset load_data unpack_data load save
    FullbackError DataError DivergenceError DownloadError InputError OptionError ModelFileError
    NotEnoughMemoryError RankError ShapeError FullbackWarning DeadUnitWarning
"""

# The rooms, in order: a file imports from its own room and from those before it, never from one
# behind it. Imports inside of functions and those for types alone count as well.
ROOMS = """
    errors options atomic memory mapped pixels threshold
    layers architecture arrays
    model show passes
    data augment engine export distributed training metrics plots
    network zoo predicting check estimator server report explorer serve bench sweep
    cli __main__
"""
EXCEPTIONS = {
    ("network", "explorer"),  # net.explore()
}
FILES = sorted(SOURCE.rglob("*.py"))


def room(file):
    """The room that a file is in: the first word behind ``fullback.``."""
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(tree):
    """The rooms that a file imports from, also inside of functions and for types alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "relative import"
            if node.module == "fullback":
                yield from (alias.name for alias in node.names if alias.name != "__version__")
            elif node.module.startswith("fullback."):
                yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "fullback":
                    yield (*alias.name.split("."), "__init__")[1]


def reexports():
    """The names that ``__init__`` imports of the package, for itself or for type checkers alone."""
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    return {
        alias.asname or alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("fullback")
        for alias in node.names
    }


def test_public_names_are_exactly_these():
    names = sorted(PUBLIC.split())
    assert sorted(reexports()) == names
    assert sorted(fullback.__all__) == names
    assert dir(fullback) == names
    assert all(hasattr(fullback, name) for name in names)


def test_names_come_from_where_type_checkers_see_them():
    seen = {name: home for name, home in reexports().items() if home != "fullback.errors"}
    modules = {name: home.rpartition(".")[0] for name, home in fullback._MODULES.items()}
    assert {**fullback._HOMES, **modules} == seen
    for name, home in fullback._MODULES.items():
        assert getattr(fullback, name) is importlib.import_module(home)


@pytest.mark.parametrize(
    "script",
    [
        "from fullback import *; zoo.question(); schedules.cosine(0); Network; fit; load",
        "import fullback as fb; fb.zoo.question(); fb.schedules.cosine(0)",
        "from fullback.training import fit; import fullback as fb; assert fb.fit is fit.fit",
        "import fullback as fb; fb.fit; import fullback.training.fit; assert callable(fb.fit)",
        "import fullback, pickle; pickle.loads(pickle.dumps(fullback.ReLU()))",
    ],
)
def test_names_are_found_in_a_fresh_process(script):
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_name_that_there_is_not():
    with pytest.raises(AttributeError, match=r"^module 'fullback' has no attribute 'nope'$"):
        _ = fullback.nope
    with pytest.raises(ImportError, match="cannot import name 'nope' from 'fullback'"):
        exec("from fullback import nope")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_point_to_earlier_rooms(file):
    own = room(file)
    if own == "__init__":
        return  # it names what every room gives to users
    rooms = ROOMS.split()
    assert own in rooms, "say in ROOMS where this room stands"
    before = rooms[: rooms.index(own) + 1]
    late = set(imported(ast.parse(file.read_text(encoding="utf-8")))) - set(before)
    assert {(own, name) for name in late} <= EXCEPTIONS


def test_every_error_is_a_fullback_error_and_a_built_in_one():
    errors = [getattr(fullback, name) for name in PUBLIC.split() if name.endswith("Error")]
    errors.remove(fullback.MeanSquaredError)
    assert all(issubclass(error, fullback.FullbackError) for error in errors)
    bases = {error.__name__: error.__mro__[2].__name__ for error in errors}
    del bases["FullbackError"]
    assert bases == {
        "DataError": "ValueError",
        "DivergenceError": "ArithmeticError",
        "DownloadError": "OSError",
        "InputError": "ValueError",
        "OptionError": "ValueError",
        "RankError": "RuntimeError",
        "ModelFileError": "ValueError",
        "NotEnoughMemoryError": "MemoryError",
        "ShapeError": "ValueError",
    }
    assert issubclass(fullback.DeadUnitWarning, fullback.FullbackWarning)


@pytest.mark.parametrize(
    ("script", "more"),
    [("import fullback", {"numpy", "sklearn", "scipy", "rich"}), ("from fullback import *", set())],
)
def test_the_package_imports_nothing_heavy(script, more):
    """Every name brings scikit-learn, which the estimators are made of."""
    script += "; import sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    heavy = more | {
        "pooch",
        "requests",
        "PIL",
        "typer",
        "torch",
        "safetensors",
        "numba",
        "llvmlite",
    }
    assert not heavy & set(result.stdout.split())


def snippets():
    text = README.read_text(encoding="utf-8") if README.exists() else ""
    return re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.skipif(not snippets(), reason="the README has no Python in it")
def test_the_readmes_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # the snippets write files
    names = {}  # of all snippets, in order: later ones use what earlier ones made
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fullback.DeadUnitWarning)
        for snippet in snippets():
            exec(compile(snippet, README, "exec"), names)
    assert capsys.readouterr().out  # the first one prints a summary
