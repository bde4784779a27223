"""The job files of examples/cluster: SLURM's script is run, the MPI operator's job read."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fullback.cli.app import app
from fullback.distributed import world
from fullback.engine.library import library
from support.mpi import MPIEXEC, need_mpi

need_mpi()
ROOT = Path(__file__).parent.parent
CLUSTER = ROOT / "examples" / "cluster"
if not CLUSTER.exists():
    pytest.skip("the tests are not in a checkout", allow_module_level=True)

# What mpiexec starts has to look as srun leaves it: PMIx tells the rank, SLURM the number of tasks.
SRUN = """#!{python}
import os, sys
options, command = [], sys.argv[1:]
while command[0].startswith("-"):
    options.append(command.pop(0))
print("srun", *options, flush=True)
tasks = "1" if "--ntasks=1" in options else os.environ["SLURM_NTASKS"]
gone = [f"-u{{name}}" for name in ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")]
if "--mpi=pmix" in options:
    command = ["{mpiexec}", "-n", tasks, "--oversubscribe", "env", *gone, *command]
os.environ["SLURM_STEP_NUM_TASKS"] = tasks
os.execvp(command[0], command)
"""
# Version v2beta1 of the MPI operator: pkg/apis/kubeflow/v2beta1/types.go.
SPEC = {"slotsPerWorker": int, "runLauncherAsWorker": bool, "runPolicy": dict,
        "mpiReplicaSpecs": dict, "sshAuthMountPath": str, "launcherCreationPolicy": str,
        "mpiImplementation": str}  # fmt: skip
RUN_POLICY = {"cleanPodPolicy": str, "ttlSecondsAfterFinished": int, "activeDeadlineSeconds": int,
              "backoffLimit": int, "schedulingPolicy": dict, "suspend": bool}  # fmt: skip
REPLICA = {"replicas": int, "template": dict, "restartPolicy": str}
CONTAINER = {"name": str, "image": str, "command": list, "args": list, "env": list,
             "resources": dict, "securityContext": dict, "volumeMounts": list}  # fmt: skip


def held(given, fields):
    """Check that there are only fields that are known, of their types."""
    assert set(given) <= set(fields)
    for name, value in given.items():
        assert isinstance(value, fields[name]), name
    return given


@pytest.fixture(scope="module")
def job():
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((CLUSTER / "mpijob.yaml").read_text(encoding="utf-8"))


def container(job, kind):
    spec = job["spec"]["mpiReplicaSpecs"][kind]["template"]["spec"]
    (one,) = spec["containers"]
    return held(one, CONTAINER)


# SLURM ----------------------------------------------------------------------------------------


def test_the_script_is_one_that_bash_reads():
    subprocess.run(["bash", "-n", CLUSTER / "train.slurm"], check=True)
    text = (CLUSTER / "train.slurm").read_text(encoding="utf-8")
    head, body = text.split("\nset -euo pipefail\n")
    asked = re.findall(r"^#SBATCH --([a-z-]+)(?:=\S+)?$", head, re.MULTILINE)
    assert len(asked) == len(re.findall("^#SBATCH", text, re.MULTILINE)) == 8
    assert "#SBATCH" not in body, "what sbatch is asked comes before the first command"


@pytest.mark.skipif(not library().compiled, reason="kernels in plain Python are slow")
def test_the_script_trains_with_all_tasks_and_goes_on(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (96, 1, 8, 8)).astype(np.uint8)
    y = np.arange(96) % 3
    x[y == 1, :, :3] //= 8
    x[y == 2, :, 5:] //= 8
    np.savez(tmp_path / "toy.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    programs = tmp_path / "bin"
    programs.mkdir()
    made = {
        "srun": SRUN.format(python=sys.executable, mpiexec=MPIEXEC),
        "fullback": f'#!/bin/sh\nexec "{sys.executable}" -m fullback "$@"\n',
    }
    for name, text in made.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    root = {f"{name}_ALLOW_RUN_AS_ROOT{more}": "1" for name in ("OMPI", "PRTE")
            for more in ("", "_CONFIRM")}  # fmt: skip
    own = {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path[1:])),
        "SLURM_NTASKS": "2",
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_JOB_ID": "7",
        "DATA": "toy.npz",
        "NET": "conv2 relu pool flatten dense3",
        "RUN": "kept",
        "EPOCHS": "6",
        "BATCH": "32",
    }
    command = ["bash", str(CLUSTER / "train.slurm")]
    for turn in range(2):  # when it is requeued it runs again
        ran = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, **root, **own},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        said = ran.stdout + ran.stderr
        assert ran.returncode == 0, said
        assert "srun --mpi=pmix --kill-on-bad-exit=1" in said
        if turn == 0:
            assert "2 processes share every batch, exact sums" in said
    assert (tmp_path / "kept" / "model.safetensors").exists()


def test_how_many_tasks_there_are(monkeypatch):
    for name in (*world._SIZES, *world._SLURM_SIZES, *world._RANKS):
        monkeypatch.delenv(name, raising=False)
    assert world.size() == 1
    monkeypatch.setenv("SLURM_NTASKS", "8")
    assert world.size() == 1, "a job's number of tasks, and nothing that has started them"
    monkeypatch.setenv("PMIX_RANK", "3")
    assert (world.size(), world.rank()) == (8, 3)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    assert world.size() == 4, "of the step, where srun was asked for fewer"
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    assert world.size() == 2, "mpiexec in a job of SLURM, whose daemons srun has started"


# The MPI operator -----------------------------------------------------------------------------


def test_the_job_has_the_fields_of_the_operator(job):
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v2beta1", "MPIJob")
    assert set(job) == {"apiVersion", "kind", "metadata", "spec"}
    assert re.fullmatch(r"[a-z]([a-z0-9-]{0,40}[a-z0-9])?", job["metadata"]["name"])
    spec = held(job["spec"], SPEC)
    policy = held(spec["runPolicy"], RUN_POLICY)
    assert policy["cleanPodPolicy"] in ("All", "Running", "None")
    assert spec["mpiImplementation"] in ("OpenMPI", "Intel", "MPICH")
    assert spec["launcherCreationPolicy"] in ("AtStartup", "WaitForWorkersReady")
    replicas = spec["mpiReplicaSpecs"]
    assert set(replicas) == {"Launcher", "Worker"}
    for each in replicas.values():
        held(each, REPLICA)
        assert each["restartPolicy"] in ("Never", "OnFailure")
        assert set(each["template"]) == {"spec"}
    assert replicas["Launcher"]["replicas"] == 1
    for kind in replicas:
        one = container(job, kind)
        texts = [*one["command"], *one["args"], *(each["value"] for each in one.get("env", ()))]
        assert all(isinstance(text, str) for text in texts), "YAML reads 4 as a number"


def test_the_command_of_the_job_is_one(job):
    one = container(job, "Launcher")
    command = [*one["command"], *one["args"]]
    workers = job["spec"]["mpiReplicaSpecs"]["Worker"]["replicas"]
    slots = workers * job["spec"]["slotsPerWorker"]
    assert command[:5] == ["mpiexec", "-n", str(slots), "--hostfile", "/etc/mpi/hostfile"]
    start = command.index("/opt/fullback/bin/fullback")
    given = command[start + 1 :]
    options = re.findall(r"--[a-z-]+", CliRunner().invoke(app, ["train", "--help"]).output)
    assert given[0] == "train"
    assert {each for each in given if each.startswith("--")} <= set(options)
    handed = [command[n + 1] for n, each in enumerate(command[:start]) if each == "-x"]
    image = (CLUSTER / "Dockerfile").read_text(encoding="utf-8")
    known = {each["name"] for each in one["env"]} | set(re.findall(r"(\w+)=", image))
    assert set(handed) <= known
    threads = next(each["value"] for each in one["env"] if each["name"] == "FULLBACK_NUM_THREADS")
    assert container(job, "Worker")["resources"]["limits"]["cpu"] == threads


def test_volumes_and_users_are_there(job):
    spec = job["spec"]["mpiReplicaSpecs"]["Worker"]["template"]["spec"]
    one = container(job, "Worker")
    assert {each["name"] for each in one["volumeMounts"]} == {
        each["name"] for each in spec["volumes"]
    }
    command = container(job, "Launcher")["args"]
    for place in (each["mountPath"] for each in one["volumeMounts"]):
        assert any(text.startswith(f"{place}/") for text in command)
    image = (CLUSTER / "Dockerfile").read_text(encoding="utf-8")
    assert f"--uid {one['securityContext']['runAsUser']} mpiuser" in image
    assert one["args"][-1] == "/home/mpiuser/.sshd_config"
    assert job["spec"]["sshAuthMountPath"] == "/home/mpiuser/.ssh"
    assert "Port 2222" in re.findall(r"'  (Port \d+)'", image)
    assert "Port 2222" in re.findall(r"'(Port \d+)'", image)


def test_mpiexec_takes_the_options_of_the_job(job, tmp_path):
    """As far as that can be without pods: with a file of hosts that names this machine."""
    one = container(job, "Launcher")
    (tmp_path / "hostfile").write_text("localhost slots=4\n")
    command = [MPIEXEC, *one["args"][: one["args"].index("/opt/fullback/bin/fullback")]]
    command[command.index("/etc/mpi/hostfile")] = str(tmp_path / "hostfile")
    env = {each["name"]: each["value"] for each in one["env"]}
    root = {f"{name}_ALLOW_RUN_AS_ROOT{more}": "1" for name in ("OMPI", "PRTE")
            for more in ("", "_CONFIRM")}  # fmt: skip
    ran = subprocess.run(
        [*command, "sh", "-c", 'echo "threads $FULLBACK_NUM_THREADS"'],
        env={**os.environ, **root, **env, "FULLBACK_CACHE_DIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("threads 4") == 4
