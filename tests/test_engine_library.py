"""The compiled kernels: for other CPUs, without their cache, and what they must not call."""

from __future__ import annotations

import errno
import math
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest

from fullback.engine import build, cache, compiler
from fullback.engine import library as module
from fullback.engine.cpu import cpu, target_machine
from fullback.engine.kernels import conv, images
from fullback.engine.library import FUNCTIONS, is_cached, library
from fullback.errors import FullbackWarning, OptionError

pytestmark = pytest.mark.skipif(not library().compiled, reason="the kernels run as plain Python")

X86 = llvm.get_process_triple().startswith("x86_64")
CPUS = {"haswell": {"avx2", "fma", "bmi2"}, "x86-64": set()}


def run(code: str, *arguments: str, seconds: float = 100, **environment: str) -> str:
    """Run Python code in a process of its own and return what it prints."""
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


# Other CPUs ---------------------------------------------------------------------------------------

EVERY_LAYER = """
import sys

import numpy as np

import fullback as fb
from fullback.layers import (
    AvgPool2D, BatchNorm2D, Conv2D, Dense, Dropout, Flatten, GlobalAvgPool2D, LeakyReLU, MaxPool2D,
    MeanSquaredError, Normalize, ReLU, Sigmoid, SoftmaxCrossEntropy, Tanh,
)

IMAGES = 21  # two blocks, one of them not full

# Rounding errors of a sum of n terms grow with the root of n (Higham and Mary, A new approach to
# probabilistic rounding error analysis, 2019); up to four sums of 21 x 12 x 12 follow each other.
ROUNDING = 4 * (21 * 12 * 12) ** 0.5 * np.finfo(np.float32).eps

def networks(dtype):
    yield fb.Network(
        [Normalize(), Conv2D(6), ReLU(), MaxPool2D(), Conv2D(5), ReLU(), MaxPool2D(), Flatten(),
         Dense(19), ReLU(), Dropout(0.3), Dense(10)],
        (1, 12, 12), loss=SoftmaxCrossEntropy(label_smoothing=0.1), dtype=dtype,
    )
    yield fb.Network(
        [Conv2D(6, 5), Tanh(), AvgPool2D(), Conv2D(4, (3, 2), stride=(2, 1), groups=2), LeakyReLU(),
         BatchNorm2D(), GlobalAvgPool2D(), Dense(3), Sigmoid()],
        (3, 12, 11), loss=MeanSquaredError(), dtype=dtype,
    )
    yield fb.Network(
        [Conv2D(9), BatchNorm2D(), ReLU(), Conv2D(7, dilation=2, bias=False), Sigmoid(),
         MaxPool2D(3, stride=2, padding=1), Flatten(), Dense(4)],
        (2, 8, 9), dtype=dtype,
    )

rng = np.random.default_rng(0)
for net, exact in zip(networks("float32"), networks("float64")):
    x = rng.normal(size=(IMAGES, *net.input_shape)).astype(np.float32)
    y = rng.integers(0, net.output_shape[0], IMAGES)
    if isinstance(net.loss, MeanSquaredError):
        y = rng.normal(size=(IMAGES, *net.output_shape))
    for name, array in net.parameters.items():
        exact.parameters[name] = array
    loss, gradients = net.loss_and_gradients(x, y, engine="lanes", seed=3)
    right, wanted = exact.loss_and_gradients(x, y, engine="reference", seed=3)
    assert abs(loss - right) <= ROUNDING * right, (loss, right)
    for name, gradient in gradients.items():
        error = abs(gradient - wanted[name]).max() / max(abs(wanted[name]).max(), 1e-3)
        assert error <= ROUNDING, (name, error)
    answers = net.logits(x, engine="lanes")
    error = abs(answers - exact.logits(x, engine="reference")).max() / abs(answers).max()
    assert error <= ROUNDING, error
    for optimizer in (fb.SGD(0.01, momentum=0.9, nesterov=True), fb.AdamW(0.01)):
        fb.fit(net, x, y, epochs=2, batch_size=17, optimizer=optimizer, verbose=False)

assert "numba" not in sys.modules  # other processes compiled
print("right")
"""


@pytest.fixture(scope="session", params=CPUS)
def other_cpu(request, tmp_path_factory):
    """The environment in which kernels are compiled for another CPU, and a cache for them."""
    name = request.param
    if not X86:
        pytest.skip("another kind of CPU")
    if any(not llvm.get_host_cpu_features().get(feature) for feature in CPUS[name]):
        pytest.skip(f"this CPU cannot run code for {name}")
    folder = tmp_path_factory.mktemp(f"kernels-{name}")
    return {"NUMBA_CPU_NAME": name, "FULLBACK_CACHE_DIR": str(folder)}


def test_gradients_on_another_cpu(other_cpu):
    assert run(EVERY_LAYER, **other_cpu) == "right\n"
    (made,) = Path(other_cpu["FULLBACK_CACHE_DIR"]).glob("*.o")
    before = made.stat().st_mtime_ns
    assert run(EVERY_LAYER, **other_cpu) == "right\n"  # from the cache
    assert made.stat().st_mtime_ns == before


@pytest.mark.skipif(not X86, reason="another kind of CPU")
@pytest.mark.parametrize(
    ("name", "wide", "absent"), [("haswell", "ymm", "zmm"), ("x86-64", "xmm", "ymm")]
)
def test_registers_of_another_cpu(monkeypatch, name, wide, absent):
    monkeypatch.setenv("NUMBA_CPU_NAME", name)
    monkeypatch.delenv("NUMBA_CPU_FEATURES", raising=False)
    target = target_machine()
    made = compiler.bitcode(conv.conv3x3, target)
    assembly = target.emit_assembly(llvm.parse_bitcode(made))
    assert wide in assembly
    assert absent not in assembly
    assert ("vfmadd" in assembly) == (name == "haswell")
    assert build.undefined(build.link([made], target)) == set()  # no call for every product


def test_chosen_cpu(monkeypatch):
    for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"):
        monkeypatch.delenv(name, raising=False)
    here = cpu()
    assert here[0] == llvm.get_host_cpu_name()
    keys = {module.cache_path()}
    monkeypatch.setenv("NUMBA_CPU_NAME", "host")
    assert cpu() == here
    monkeypatch.setenv("NUMBA_CPU_NAME", "haswell")
    assert cpu() == ("haswell", "")  # and not what this machine can do besides
    keys.add(module.cache_path())
    monkeypatch.setenv("NUMBA_CPU_FEATURES", "+avx2,-fma")
    assert cpu() == ("haswell", "+avx2,-fma")
    keys.add(module.cache_path())
    monkeypatch.setenv("NUMBA_CPU_NAME", "generic")
    assert cpu() == ("", "+avx2,-fma")
    keys.add(module.cache_path())
    assert len(keys) == 4  # each has an object file of its own


@pytest.mark.parametrize(
    ("name", "features", "message"),
    [
        ("hasswell", None, "'hasswell' is not a recognized processor"),
        ("pentium4" if X86 else "no-cpu", None, "LLVM cannot compile for NUMBA_CPU_NAME="),
        ("a b", None, "NUMBA_CPU_NAME must be a name like haswell or x86-64, got 'a b'"),
        ("help", None, "LLVM cannot compile for NUMBA_CPU_NAME=help"),
        ("x" * 5000, None, "NUMBA_CPU_NAME must be a name"),
        ("", "avx2", "features like .avx2,-fma, each with its sign, got 'avx2'"),
        ("", "+avx2 -fma", "each with its sign"),
        ("", "+nonsense", "'.nonsense' is not a recognized feature"),
        ("", "+help", "LLVM cannot compile"),
    ],
)
def test_unknown_cpus_and_features(monkeypatch, name, features, message):
    """LLVM would end the process over some of these."""
    monkeypatch.setenv("NUMBA_CPU_NAME", name)
    monkeypatch.delenv("NUMBA_CPU_FEATURES", raising=False)
    if features is not None:
        monkeypatch.setenv("NUMBA_CPU_FEATURES", features)
    with pytest.raises(OptionError, match=message) as caught:
        cpu()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_an_unknown_cpu_on_the_command_line():
    """The process ends with one line."""
    ran = subprocess.run(
        [sys.executable, "-m", "fullback", "warmup"],
        env={**os.environ, "NUMBA_CPU_NAME": "hasswell"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("error: LLVM cannot compile for NUMBA_CPU_NAME=hasswell")
    assert ran.stderr.count("\n") == 1


def test_numba_s_settings(two_functions, monkeypatch):
    """Processes that compile do not see them; one that stops Numba is told."""
    for name, value in (("NUM_THREADS", "0"), ("BOUNDSCHECK", "1"), ("DEBUG", "1")):
        monkeypatch.setenv(f"NUMBA_{name}", value)
    done = []
    monkeypatch.setattr(build, "_compiler", lambda: pytest.fail("compiled here"))
    assert loads(build.compile_object(target_machine(), done.append, processes=1), two_functions)
    program = """
        import os
        from fullback.engine import build
        from fullback.engine.cpu import target_machine
        from fullback.errors import OptionError
        os.environ["NUMBA_NUM_THREADS"] = "0"
        try:
            build.compile_object(target_machine(), processes=0)
        except OptionError as error:
            print(error)
    """
    assert "check the environment variables whose names begin with NUMBA_" in run(program)


# What compiled code may call ----------------------------------------------------------------------


def raises(a, s, c, k, i, j):
    if k[0] > 3:
        raise ValueError
    s[0] = 1


def steps_by_zero(a, s, c, k, i, j):
    for n in range(0, k[0], k[1]):  # where the step is 0, range raises
        s[n] = 0


def calls_the_system(a, s, c, k, i, j):
    s[0] = math.exp(s[1])


@pytest.mark.parametrize(
    ("kernel", "symbol"), [(raises, "PyErr_"), (steps_by_zero, "PyErr_"), (calls_the_system, "exp")]
)
def test_unknown_symbols_are_refused(kernel, symbol):
    target = target_machine()
    part = compiler.bitcode(kernel, target)
    wanted = rf"fullback_{kernel.__name__} takes .*{symbol}.* from outside; a kernel can call"
    with pytest.raises(ValueError, match=wanted):
        build.link([part], target)


def test_symbols_of_the_kernels():
    code = module._read(module.cache_path())
    if code is None:
        pytest.skip("the kernels are not cached")
    assert build.undefined(code) <= build.KNOWN_SYMBOLS


# Compiling ----------------------------------------------------------------------------------------


@pytest.fixture
def two_functions(monkeypatch):
    """Only two functions to compile."""
    assert FUNCTIONS[:2] == (images.gather, images.output)
    monkeypatch.setattr(build, "FUNCTIONS", FUNCTIONS[:2])
    return ["fullback_gather", "fullback_output"]


def loads(code, names):
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target_machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return all(engine.get_function_address(name) for name in names)


def test_processes_compile(two_functions, monkeypatch):
    def here(*_):
        raise AssertionError

    monkeypatch.setattr(compiler, "bitcode", here)
    done = []
    code = build.compile_object(target_machine(), done.append, processes=2)
    assert sorted(done) == ["gather", "output"]
    assert loads(code, two_functions)


@pytest.mark.parametrize(
    "served",
    [
        "raise SystemExit",
        "print('not a number')",
        "print(10); print('no bitcode')",
        "print(100)",
        "import time; time.sleep(60)",
        None,
    ],
)
def test_processes_that_do_not_compile(two_functions, monkeypatch, served):
    if served is None:
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
    else:
        monkeypatch.setattr(build, "SERVE", served)
    monkeypatch.setattr(build, "PATIENCE", 0.5)
    done = []
    code = build.compile_object(target_machine(), done.append, processes=1)
    assert done == ["gather", "output"]
    assert loads(code, two_functions)


def test_frozen_programs_start_no_process(monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert build._cores() == 0


# The cache ----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def code():
    """The object file for this machine."""
    library()
    made = module._read(module.cache_path())
    return build.compile_object(target_machine()) if made is None else made


@pytest.fixture
def compilations(code, monkeypatch, tmp_path):
    """An empty cache, and a compiler that takes no time; what it compiles is counted."""
    made = []
    monkeypatch.setattr(module, "_compile", lambda target: made.append(1) or code)
    monkeypatch.setenv("FULLBACK_CACHE_DIR", str(tmp_path / "kernels"))
    return made


def start():
    """Load the library as a process does that starts."""
    made = module._library()
    assert made.compiled
    assert np.all(made.kernels)


def test_compiled_once(compilations, capfd):
    assert not is_cached()
    start()
    assert is_cached()
    start()
    assert compilations == [1]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("damage", ["truncated", "altered", "empty", "short"])
def test_damaged_object_file(compilations, damage):
    start()
    path = module.cache_path()
    content = bytearray(path.read_bytes())
    if damage == "altered":
        content[len(content) // 2] ^= 1
    else:
        del content[{"truncated": -100, "empty": 0, "short": 10}[damage] :]
    path.write_bytes(content)
    assert not is_cached()
    start()
    assert compilations == [1, 1]
    assert is_cached()  # mended


def one_line(capfd, reason):
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("fullback: the compiled kernels cannot be kept in ")
    assert reason in captured.err
    assert captured.err.count("\n") == 1


def test_object_file_is_a_folder(compilations, capfd):
    module.cache_path().mkdir(parents=True)
    start()
    start()
    assert compilations == [1, 1]
    assert len(list(module.cache_path().parent.iterdir())) == 1  # nothing is left behind
    captured = capfd.readouterr().err.splitlines()
    assert len(captured) == 2
    assert captured[0].endswith(".o is a folder")


def test_cache_folder_cannot_be_made(compilations, capfd, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FULLBACK_CACHE_DIR", str(tmp_path / "file" / "kernels"))
    start()
    one_line(capfd, "Not a directory" if os.name == "posix" else "")
    assert compilations == [1]


@pytest.mark.skipif(os.name != "posix", reason="folders' permissions are Posix")
def test_cache_folder_cannot_be_written_to(compilations, capfd, monkeypatch, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root can write everywhere")
    (tmp_path / "kernels").mkdir(mode=0o500)
    start()
    one_line(capfd, "Permission denied")


def test_disk_is_full(compilations, capfd, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    start()
    one_line(capfd, "No space left on device")
    assert list(module.cache_path().parent.iterdir()) == []


def test_nobody_to_tell(compilations, monkeypatch, tmp_path):
    module.cache_path().mkdir(parents=True)
    with (tmp_path / "closed").open("w") as closed:
        pass
    for stream in (None, closed):
        monkeypatch.setattr(sys, "stderr", stream)
        start()


def test_old_object_files_go(compilations):
    folder = module.cache_path().parent
    folder.mkdir()
    for n in range(12):
        (folder / f"fullback-{n}.o").touch()
        os.utime(folder / f"fullback-{n}.o", (n, n))
    start()
    left = {path.name for path in folder.iterdir()}
    assert left == {module.cache_path().name, *(f"fullback-{n}.o" for n in range(5, 12))}


# A cache that other users can write to ----------------------------------------------------------

SOMEBODY = 65534  # the number of another user


def replaced_by_link(path):
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


def folder_replaced_by_link(path):
    folder = path.parent
    (folder.parent / "away").mkdir()
    (folder.parent / "away").chmod(0o777)
    folder.rename(folder.parent / "away" / "kernels")
    folder.symlink_to(folder.parent / "away" / "kernels")


UNTRUSTED = {
    "file others can write": (lambda path: path.chmod(0o602), "other users .permissions 602"),
    "file a group can write": (lambda path: path.chmod(0o660), "other users .permissions 660"),
    "link": (replaced_by_link, "is a link"),
    "folder others can write": (lambda path: path.parent.chmod(0o777), "other users"),
    "sticky folder": (lambda path: path.parent.chmod(0o1777), "other users .permissions 1777"),
    "folder above": (lambda path: path.parents[1].chmod(0o707), "other users .permissions 707"),
    "linked folder": (folder_replaced_by_link, "away can be written to by other users"),
    "pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "is not a regular file"),
}
OWNERS = {
    "file": (lambda path: os.chown(path, SOMEBODY, SOMEBODY), "another user .number 65534"),
    "folder": (lambda path: os.chown(path.parent, SOMEBODY, -1), "kernels belongs to another user"),
    "above": (lambda path: os.chown(path.parents[1], SOMEBODY, -1), "belongs to another user"),
}

posix = pytest.mark.skipif(os.name != "posix", reason="Windows has no such permissions")


def untrusted(compilations, change, message):
    """Fill the cache, change it, and start again: it is not used, and stays as it is."""
    start()
    path = module.cache_path()
    change(path)
    before = {own: own.lstat().st_mtime_ns for own in path.parent.iterdir()}
    assert not is_cached()
    with pytest.warns(FullbackWarning, match=message) as caught:
        start()
    assert len(caught) == 1
    assert "FULLBACK_CACHE_DIR" in str(caught[0].message)
    assert compilations == [1, 1]
    assert {own: own.lstat().st_mtime_ns for own in path.parent.iterdir()} == before


@posix
@pytest.mark.parametrize("case", UNTRUSTED)
def test_a_cache_that_others_can_write_to_is_not_used(compilations, case):
    untrusted(compilations, *UNTRUSTED[case])


@posix
@pytest.mark.parametrize("case", OWNERS)
def test_a_cache_of_another_user_is_not_used(compilations, case):
    if os.geteuid():
        pytest.skip("only root can give files away")
    untrusted(compilations, *OWNERS[case])


@posix
def test_what_is_trusted(compilations, tmp_path, monkeypatch):
    """Permissions of what is made; folders like /tmp above; links to a folder of one's own."""
    tmp_path.chmod(0o1777)
    before = os.umask(0)
    monkeypatch.setenv("FULLBACK_CACHE_DIR", str(tmp_path / "new" / "kernels"))
    try:
        start()
    finally:
        os.umask(before)
    made = [tmp_path / "new", tmp_path / "new" / "kernels", module.cache_path()]
    assert [oct(path.stat().st_mode & 0o7777) for path in made] == ["0o700", "0o700", "0o600"]
    (tmp_path / "link").symlink_to("new")
    monkeypatch.setenv("FULLBACK_CACHE_DIR", str(tmp_path / "link" / "kernels"))
    start()
    assert compilations == [1]


@posix
@pytest.mark.parametrize("members", [[], ["me"], ["me", "you"]])
def test_a_group_of_this_user_alone(compilations, members, monkeypatch):
    """A folder that a group can write to is trusted where nobody else is in that group."""
    import grp
    import pwd

    user = pwd.struct_passwd(("me", "x", os.geteuid(), 4321, "", "/", "/bin/sh"))
    group = grp.struct_group(("me", "x", 4321, members))
    monkeypatch.setattr(pwd, "getpwuid", lambda number: user)
    monkeypatch.setattr(grp, "getgrgid", lambda number: group)
    start()
    module.cache_path().parent.chmod(0o770)
    assert is_cached() == (members != ["me", "you"])


@posix
def test_a_link_is_not_written_through(compilations, tmp_path):
    """A link that another process puts in the file's place is replaced."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    path = tmp_path / "kernels" / "fullback-x.o"
    path.parent.mkdir(mode=0o700)
    path.symlink_to(victim)
    cache.write(path, b"code", 8)
    assert victim.read_bytes() == b"precious"
    assert not path.is_symlink()
    assert path.read_bytes() == b"code"
    assert [own.name for own in path.parent.iterdir()] == [path.name]


SLOW_COMPILER = """
import sys, time
from pathlib import Path

import numpy as np

import fullback as fb
from fullback.engine import library

def compile(target):
    time.sleep(1)
    print("compiled")
    return Path(sys.argv[1]).read_bytes()

library._compile = compile
time.sleep(max(0, float(sys.argv[2]) - time.time()))
net = fb.zoo.question()
x = np.random.default_rng(0).random((40, 1, 28, 28))
assert abs(net.logits(x, engine="lanes") - net.logits(x, engine="reference")).max() < 1e-5
"""


def test_processes_that_start_at_the_same_time(code, tmp_path):
    """Each of them works; none waits for another, and the cache is whole afterwards."""
    (tmp_path / "object").write_bytes(code)
    environment = {**os.environ, "FULLBACK_CACHE_DIR": str(tmp_path / "kernels")}
    moment = str(time.time() + 1.5)
    command = [sys.executable, "-c", SLOW_COMPILER, str(tmp_path / "object"), moment]
    processes = [
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        assert out in ("", "compiled\n")
    assert len(list((tmp_path / "kernels").iterdir())) == 1
    assert run(SLOW_COMPILER, *command[3:], FULLBACK_CACHE_DIR=str(tmp_path / "kernels")) == ""


def test_threads_that_start_at_the_same_time(code, tmp_path):
    (tmp_path / "object").write_bytes(code)
    program = """
        import sys, threading, time
        from pathlib import Path

        from fullback.engine import library

        def compile(target):
            time.sleep(0.5)
            print("compiled")
            return Path(sys.argv[1]).read_bytes()

        library._compile = compile
        threads = [threading.Thread(target=library.library) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    """
    where = str(tmp_path / "kernels")
    assert run(program, str(tmp_path / "object"), FULLBACK_CACHE_DIR=where) == "compiled\n"


def test_prediction_without_numba(code, tmp_path):
    program = """
        import sys
        import numpy as np
        import fullback as fb
        fb.zoo.question().predict(np.zeros((3, 28, 28), np.uint8))
        assert "numba" not in sys.modules
    """
    if not is_cached():
        pytest.skip("the kernels are not cached")
    run(program)
