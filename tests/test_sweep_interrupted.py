"""fullback sweep where something comes between, and on Dask; scikit-learn's searches on Dask."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dask
import pytest
from distributed import Client

import fullback as fb
from fullback.cli.trial import train_on_dask
from support.command import environment, posix, run, start, time_limit
from support.sweeps import GRID, LONG, models, write, write_data


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The working directory, with a data set."""
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    return tmp_path


def processes_of(parent):
    """The processes that a process has started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            found.append(int(entry.parent.name))
    return found


def is_trial(pid):
    try:
        return b"fullback.cli.trial" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def descends(pid, ancestor):
    while pid not in (0, 1, ancestor):
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return pid == ancestor


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")


def wait_for(condition, seconds=50):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def trained():
    """How many trials have a checkpoint."""
    return len(list(Path("s").glob("trial-*/checkpoint.safetensors")))


def begun(moment, sweeping):
    """Whether so many trials have a checkpoint; or the sweep exists, or has ended."""
    return (Path("s/sweep.json").exists() and trained() >= moment) or sweeping.poll() is not None


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Results and models of a sweep that nothing came between."""
    return tmp_path_factory.mktemp("whole")


class TestInterrupted:
    @pytest.fixture
    def expected(self, whole, place):
        """The results and models of the sweep where nothing comes between, made once."""
        if not (whole / "results.csv").exists():
            assert run("sweep", write(LONG), "--run", whole, "--json").code == 0
        write(LONG)
        return (whole / "results.csv").read_bytes(), models(whole)

    def finish(self, expected):
        ran = run("sweep", "s.toml", "--json")
        assert ran.code == 0, ran.err
        assert (Path("s/results.csv").read_bytes(), models("s")) == expected

    @posix
    def test_kill_9(self, expected):
        """The processes of its trials end too, and leave their folders."""
        for moment in (0, 1, 3):
            sweeping = start("sweep", "s.toml", "--json")
            with time_limit(sweeping):
                wait_for(lambda moment=moment, sweeping=sweeping: begun(moment, sweeping))
                children = processes_of(sweeping.pid)
                sweeping.kill()
                sweeping.communicate()
            for child in children:
                wait_for(lambda child=child: not is_trial(child))
        self.finish(expected)

    @linux
    def test_a_process_of_a_trial_is_killed(self, expected):
        sweeping = start("sweep", "s.toml", "--json")
        with time_limit(sweeping):
            wait_for(lambda: trained() >= 1)
            children = processes_of(sweeping.pid)
            assert children
            os.kill(children[0], signal.SIGKILL)
            _out, err = sweeping.communicate(timeout=60)
        assert (sweeping.returncode, err) == (0, "")
        assert (Path("s/results.csv").read_bytes(), models("s")) == expected

    @linux
    def test_a_trial_goes_on_from_its_checkpoint(self, place):
        text = LONG.replace("400", "2000").replace("trials = 4", "trials = 1")
        sweeping = start("sweep", write(text), "--json")
        with time_limit(sweeping):
            wait_for(lambda: trained() == 1)
            (child,) = processes_of(sweeping.pid)
            os.kill(child, signal.SIGKILL)
            _, err = sweeping.communicate(timeout=60)
        assert (sweeping.returncode, err) == (0, "")
        log = Path("s/trial-001/log.txt").read_text(encoding="utf-8")
        assert "goes on after epoch " in log
        assert run("train", "--config", "s/trial-001/config.toml", "--out", "m", "--json").code == 0
        assert Path("m").read_bytes() == models("s")["trial-001"]

    @posix
    def test_ctrl_c(self, expected):
        sweeping = start("sweep", "s.toml", "--json")
        with time_limit(sweeping):
            wait_for(lambda: trained() >= 1)
            sweeping.send_signal(signal.SIGINT)
            _, err = sweeping.communicate(timeout=60)
        assert sweeping.returncode == 130
        assert err == "error: interrupted; the same command goes on with the sweep in s\n"
        assert Path("s/results.csv").exists()
        self.finish(expected)

    def test_one_at_a_time(self, expected):
        from filelock import FileLock

        Path("s").mkdir()
        with FileLock("s/.lock"):
            ran = run("sweep", "s.toml")
        assert ran.code == 1
        assert ran.err.startswith("error: another process goes on with the sweep in s;")


class TestDask:
    """On a cluster of worker processes on this machine."""

    @pytest.fixture
    def cluster(self, request):
        """The address of a scheduler, and its process."""
        workers = getattr(request, "param", 2)
        script = Path(__file__).parent / "support" / "clusters.py"
        running = subprocess.Popen(
            [sys.executable, script, str(workers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(),
        )
        with time_limit(running):
            yield running.stdout.readline().strip(), running
            running.communicate()

    @linux
    def test_a_worker_is_killed(self, cluster, place):
        """The results are those of processes here."""
        address, running = cluster
        sweeping = start("sweep", write(LONG), "--workers", address, "--json")
        with time_limit(sweeping):
            wait_for(lambda: trained() >= 1)
            nested = [pid for n in processes_of(running.pid) for pid in (n, *processes_of(n))]
            parents = [pid for pid in nested if any(map(is_trial, processes_of(pid)))]
            os.kill(parents[0], signal.SIGKILL)
            _, err = sweeping.communicate(timeout=60)
        assert (sweeping.returncode, err) == (0, "")
        here = run("sweep", "s.toml", "--run", "here", "--json")
        assert here.code == 0
        assert Path("s/results.csv").read_bytes() == Path("here/results.csv").read_bytes()
        assert models("s") == models("here")

    @linux
    def test_ctrl_c_ends_trials_on_the_workers(self, cluster, place):
        address, running = cluster
        long = LONG.replace("400", "40000")
        sweeping = start("sweep", write(long), "--workers", address, "--json")
        with time_limit(sweeping):
            wait_for(lambda: trained() >= 1)
            sweeping.send_signal(signal.SIGINT)
            sweeping.communicate(timeout=60)
        assert sweeping.returncode == 130
        pids = [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]
        mine = [pid for pid in pids if is_trial(pid) and descends(pid, running.pid)]
        for pid in mine:
            wait_for(lambda pid=pid: not Path(f"/proc/{pid}/cwd").exists())

    @pytest.mark.parametrize("cluster", [1], indirect=True)
    def test_a_worker_of_another_kind(self, cluster, tmp_path):
        """It says that it does not see the folder, or has another fullback."""
        with Client(cluster[0], set_as_default=False) as client:
            nowhere = client.submit(train_on_dask, str(tmp_path), fb.__version__).result(60)
            other = client.submit(train_on_dask, str(tmp_path), "0.0.0").result(60)
        assert nowhere[0] == other[0] == 1
        assert f"does not see {tmp_path}; the sweep's folder must be on a file" in nowhere[1]
        assert "and the sweep was started by 0.0.0; install the same one" in other[1]

    @linux
    def test_the_scheduler_is_killed(self, cluster, place):
        address, running = cluster
        sweeping = start("sweep", write(LONG.replace("400", "40000")), "--workers", address)
        with time_limit(sweeping):
            wait_for(lambda: trained() >= 1)
            running.kill()
            _, err = sweeping.communicate(timeout=60)
        assert sweeping.returncode == 1
        assert err.startswith("error: 4 trials were not trained to the end (")
        assert len(err.splitlines()) == 1

    def test_no_scheduler(self, place):
        with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
            ran = run("sweep", write(GRID), "--workers", "tcp://127.0.0.1:9")
        assert ran.code == 1
        assert ran.err.startswith("error: no Dask scheduler answers at tcp://127.0.0.1:9 (")
        assert len(ran.err.splitlines()) == 1

    @pytest.mark.parametrize("cluster", [0], indirect=True)
    def test_no_workers(self, cluster, place):
        quick = environment(DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT="4s")
        done = start("sweep", write(GRID), "--workers", cluster[0], env=quick)
        with time_limit(done):
            _, err = done.communicate(timeout=60)
        assert done.returncode == 1
        assert "has no workers; start some with dask worker tcp://" in err
        assert len(err.splitlines()) == 1

    def test_without_dask(self, place, monkeypatch):
        monkeypatch.setitem(sys.modules, "distributed", None)
        ran = run("sweep", write(GRID), "--workers", "tcp://127.0.0.1:9")
        assert (ran.code, ran.err) == (
            2,
            "error: a Dask scheduler needs dask and distributed; pip install 'fullback[dask]'\n",
        )

    @pytest.mark.parametrize(
        ("kind", "kill"), [("grid", "kill"), ("random", "kill"), ("halving", "spare")]
    )
    def test_scikit_learns_searches(self, kind, kill):
        """The same scores with two workers, of which one is killed, as without Dask."""
        support = Path(__file__).parent / "support"
        examples = support.parent.parent / "examples"
        done = subprocess.run(
            [sys.executable, support / "searches.py", examples, kind, kill],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=150,
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["same"]
        assert len(set(found["scores"])) > 1
        assert found["killed"] == (kill == "kill")
        assert found["threads"] == 1
