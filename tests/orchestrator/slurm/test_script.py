from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator.slurm.folder import SlurmFolder
from orchestrator.slurm.options import WorkerOptions
from orchestrator.slurm.script import sbatch_text

FOLDER = SlurmFolder(Path("/home/ada/.saeq/slurm/workers"))

WHOLE_NODES = """\
#!/bin/bash
#SBATCH --job-name=saeq-workers
#SBATCH --output=/home/ada/.saeq/slurm/workers/jobs/%j.log
#SBATCH --open-mode=append
#SBATCH --export=ALL
#SBATCH --partition=gpu
#SBATCH --account=lab
#SBATCH --qos=long
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=64
#SBATCH --gres=gpu:a100:8
#SBATCH --mem=0
#SBATCH --time=2-00:00:00
#SBATCH --signal=B:USR2@300
#SBATCH --requeue
#SBATCH --exclusive
#SBATCH --mail-user="ada@x.org,eve@x.org"

# A worker of `saeq slurm up`: one `saeq serve`, and what SLURM wants of it.
up=/home/ada/.saeq/slurm/workers
store=s3://bucket/saeq
python_asked=/opt/saeq/bin/python
python_there=/login/python
requeue=yes
signal_s=300
devices=(--gres=gpu:a100:8)
export HF_HOME='/scratch/my models'
"""

ARRAY = """\
#!/bin/bash
#SBATCH --job-name=saeq-workers
#SBATCH --output=/home/ada/.saeq/slurm/workers/jobs/%A_%a.log
#SBATCH --open-mode=append
#SBATCH --export=ALL
#SBATCH --array=0-3%2
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --constraint="a100|h100"
#SBATCH --exclude=n7,n[3-5],n9
#SBATCH --signal=B:USR2@180
#SBATCH --no-requeue

# A worker of `saeq slurm up`: one `saeq serve`, and what SLURM wants of it.
up=/home/ada/.saeq/slurm/workers
store='/scratch/my store'
python_asked=''
python_there=/login/python
requeue=no
signal_s=180
devices=()
"""


def _text(values: dict[str, object], store: str = "/s", **changes: object) -> str:
    options = WorkerOptions.model_validate(values)
    return sbatch_text(options, FOLDER, store, python="/login/python", **changes)  # type: ignore[arg-type]


def test_what_is_asked_of_sbatch_for_whole_nodes() -> None:
    text = _text(
        {
            "partition": "gpu", "account": "lab", "qos": "long", "nodes": 2, "cpus": 64,
            "gpus": "a100:8", "memory": "0", "time": "2-00", "signal": "5m",
            "python": "/opt/saeq/bin/python", "environment": {"HF_HOME": "/scratch/my models"},
            "sbatch": {"exclusive": True, "mail-user": "ada@x.org,eve@x.org"},
        },
        "s3://bucket/saeq",
    )  # fmt: skip
    assert text.startswith(WHOLE_NODES)


def test_what_is_asked_of_sbatch_for_an_array() -> None:
    text = _text(
        {"jobs": 4, "array_throttle": 2, "constraint": "a100|h100", "exclude": "n7,n[3-5]",
         "requeue": False},
        "/scratch/my store",
        exclude=["n9", "n7"],
    )  # fmt: skip
    assert text.startswith(ARRAY)


def test_a_job_that_is_tried_elsewhere_is_no_array() -> None:
    text = _text({"jobs": 4}, jobs=1)
    assert "--array" not in text
    assert "/jobs/%j.log" in text


def test_several_nodes_get_a_ray_with_a_token_and_one_node_a_ray_of_its_own() -> None:
    one, several = _text({"gpus": 1}), _text({"gpus": 1, "nodes": 2})
    assert "ray_node" not in one
    assert "--ray-address" not in one
    assert "RAY_AUTH_TOKEN_PATH=$ray/token" in several
    assert '--ray-address "$address"' in several
    assert several.count("--overlap") == 2, "the serve shares the first node with Ray's head"


@pytest.mark.parametrize("nodes", [1, 2])
def test_the_script_is_bash(nodes: int) -> None:
    text = _text({"nodes": nodes, "jobs": 3, "gpus": "a100:1"})
    checked = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert max(len(line) for line in text.splitlines()) <= 110
    if shutil.which("shellcheck"):
        found = subprocess.run(
            ["shellcheck", "--severity=error", "-"], input=text, capture_output=True, text=True
        )
        assert found.returncode == 0, found.stdout


def test_nothing_of_a_neighbours_is_stopped() -> None:
    text = _text({"nodes": 2})
    assert not [word for word in ("ray stop", "pkill", "killall", "kill 0") if word in text]
