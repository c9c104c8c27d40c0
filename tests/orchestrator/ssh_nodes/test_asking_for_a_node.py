"""What a user writes, and what is refused before anything is reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.serving.ray_host import ray_labels
from orchestrator.ssh_nodes.env_file import BadVariables, gathered, parsed, rendered
from orchestrator.ssh_nodes.fitness import host_faults
from orchestrator.ssh_nodes.order import (
    CUDA_12_INDEX,
    BadOrder,
    Choices,
    NodeOrder,
    need_key,
    parsed_labels,
)
from orchestrator.ssh_nodes.survey import Machine
from orchestrator.ssh_nodes.target import BadTarget, SshTarget, checked_node_name
from tests.orchestrator.cli.conftest import Saeq
from tests.orchestrator.cli.conftest import saeq as saeq

GPU_BOX = """
now 1795257748.5
hostname box
system Linux x86_64
user ubuntu
root /home/ubuntu/.saeq
free_mib 200000
memory_mib 100000
gpu NVIDIA A100-SXM4-80GB, 81920, 570.124.06
gpu NVIDIA A100-SXM4-80GB, 81920, 570.124.06
cuda 12.8
python 3.10.12 venv /usr/bin/python3
python 3.11.9 venv /usr/bin/python3.11
reach yes
under systemd
a banner of the provider
"""


def order(**changes: object) -> NodeOrder:
    values: dict[str, object] = {"name": "box", "machine": "box", "store": "s3://bucket/saeq"}
    return NodeOrder.model_validate({**values, **changes})


def machine(text: str = GPU_BOX, **lines: str) -> Machine:
    kept = [line for line in text.splitlines() if line.split(" ")[0] not in lines]
    return Machine.parse("\n".join([*kept, *(f"{k} {v}" for k, v in lines.items() if v)]))


@pytest.mark.parametrize(
    ("text", "port", "destination", "node"),
    [
        ("ubuntu@1.2.3.4", None, "ubuntu@1.2.3.4", "1-2-3-4"),
        ("root@ssh5.vast.ai:12345", 12345, "root@ssh5.vast.ai", "ssh5-vast-ai-12345"),
        ("ssh://root@box:22", 22, "root@box", "box"),
        ("Box", None, "Box", "box"),
        ("me@[fe80::1]:2222", 2222, "me@fe80::1", "fe80-1-2222"),
    ],
)
def test_an_address_is_read_as_ssh_users_write_it(
    text: str, port: int | None, destination: str, node: str
) -> None:
    target = SshTarget.parse(text)
    assert (target.port, target.destination, target.node) == (port, destination, node)
    assert SshTarget.of_labels(target.labels, None, ()) == target


@pytest.mark.parametrize("text", ["", "a b", "-oProxyCommand=evil", "x@-evil", "a@b@c"])
def test_what_is_no_address_never_reaches_ssh(text: str) -> None:
    with pytest.raises(BadTarget, match="names no host"):
        SshTarget.parse(text)


def test_two_ports_a_missing_key_and_a_bad_name_are_refused() -> None:
    with pytest.raises(BadTarget, match="two ports"):
        SshTarget.parse("box:1", port=2)
    with pytest.raises(BadTarget, match="no such file"):
        SshTarget.parse("box", identity="/nowhere/key")
    with pytest.raises(BadTarget, match="lower-case"):
        checked_node_name("Box 1")


def test_an_env_file_is_read_like_others_read_theirs() -> None:
    text = "# keys\nexport A=1\nB='two words'\n\nC=x=y\n"
    assert parsed(text, "f") == {"A": "1", "B": "two words", "C": "x=y"}
    assert rendered({"B": "it's", "A": "1"}) == "A=1\nB='it'\"'\"'s'\n"


def test_a_faulty_line_is_named_without_its_value(tmp_path: Path) -> None:
    path = tmp_path / "store.env"
    path.write_text("AWS_ACCESS_KEY_ID=abc\nhush-hush\n")
    with pytest.raises(BadVariables, match="line 2") as refused:
        gathered(str(path), [])
    assert "hush" not in str(refused.value)


def test_a_value_on_the_command_line_is_refused_without_repeating_it() -> None:
    with pytest.raises(BadVariables, match="name alone") as refused:
        gathered(None, ["HF_TOKEN=hush"], {})
    assert "hush" not in str(refused.value)


def test_variables_that_are_not_set_or_not_to_be_set_are_refused() -> None:
    with pytest.raises(BadVariables, match="not set here"):
        gathered(None, ["HF_TOKEN"], {})
    with pytest.raises(BadVariables, match="the node's start sets it"):
        gathered(None, ["SAEQ_NODE"], {"SAEQ_NODE": "x"})
    assert gathered(None, ["HF_TOKEN"], {"HF_TOKEN": "t"}) == {"HF_TOKEN": "t"}


def test_labels_and_price_become_labels_of_the_ray_node() -> None:
    labels = parsed_labels(["saeq-provider=vast"], 1.49)
    assert labels == {"saeq-provider": "vast", "saeq-usd-per-hour": "1.49"}
    with pytest.raises(BadOrder, match="NAME=VALUE"):
        parsed_labels(["a,b=c"], None)


def test_only_what_ray_takes_as_a_label_becomes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAEQ_NODE_LABELS", "saeq-usd-per-hour=1.49,bad key=x,reason=no good")
    assert ray_labels() == {"saeq-usd-per-hour": "1.49"}


def test_the_survey_is_understood_and_strange_lines_are_left_out() -> None:
    found = machine()
    assert [gpu.memory_gib for gpu in found.gpus] == [80.0, 80.0]
    assert found.driver_major == 570
    assert [python.minor for python in found.fit_pythons(None)] == ["3.11"]
    assert "2 x NVIDIA A100-SXM4-80GB (80 GiB, driver 570.124.06, CUDA 12.8)" in found.described()


def test_a_fit_host_has_no_faults() -> None:
    assert host_faults(order(), machine(), has_environment=False) == []


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ({"free_mib": "3000"}, "--folder PATH"),
        ({"not_writable": "/root"}, "cannot write into /root"),
        ({"gpu": "NVIDIA V100, 16384, 470.57.02"}, "driver 470.57.02 (CUDA 12.8) is too old"),
        ({"gpu": "", "gpu_fault": "Driver/library version mismatch"}, "nvidia-smi fails"),
        ({"python": "3.8.10 venv /usr/bin/python3"}, "no Python 3.11 or newer with venv"),
        ({"reach": "no Connection refused"}, "cannot be reached from there"),
        ({"store_folder": "no"}, "a folder that the host does not have"),
        ({"system": "Darwin arm64"}, "has to be Linux"),
        ({"lacks": "flock"}, "lacks flock"),
    ],
)
def test_each_fault_of_a_host_says_what_to_do(lines: dict[str, str], words: str) -> None:
    (fault,) = host_faults(order(), machine(**lines), has_environment=False)
    assert words in fault


def test_faults_come_all_at_once_and_setup_may_bring_a_python() -> None:
    bare = machine(python="", free_mib="10")
    assert len(host_faults(order(), bare, has_environment=False)) == 2
    assert len(host_faults(order(setup="apt-get"), bare, has_environment=False)) == 1
    assert len(host_faults(order(environment="/opt/venv"), bare, has_environment=False)) == 1


def test_an_endpoint_on_loopback_is_told_apart() -> None:
    asked = order(store="s3://b/p?endpoint_url=http://127.0.0.1:8333")
    (fault,) = host_faults(asked, machine(reach="no Connection refused"), has_environment=False)
    assert "means each machine itself" in fault


def test_the_same_python_as_here_is_preferred_then_uv_then_any() -> None:
    assert Choices.of(order(), machine(), "3.11").base_python == "/usr/bin/python3.11"
    by_uv = Choices.of(order(), machine(uv="/usr/bin/uv"), "3.12")
    assert (by_uv.make_with, by_uv.python_version) == ("uv", "3.12")
    assert Choices.of(order(), machine(), "3.12").python_version == "3.11"
    old = machine(python="3.8.10 venv /usr/bin/python3", pip="python3")
    assert Choices.of(order(), old, "3.12").make_with == "pip"


def test_torch_is_taken_from_where_the_driver_can_use_it() -> None:
    assert Choices.of(order(), machine(), "3.11").torch_index == CUDA_12_INDEX
    new = machine(gpu="NVIDIA H100, 81920, 580.65.06")
    assert Choices.of(order(), new, "3.11").torch_index == ""
    asked = order(torch_index="https://example.org/whl")
    assert Choices.of(asked, machine(), "3.11").torch_index == "https://example.org/whl"


def test_other_needs_are_another_environment() -> None:
    choices = Choices.of(order(), machine(), "3.11")
    keys = {
        need_key(order(), choices, ["a==1"]),
        need_key(order(name="other"), choices, ["a==1"]),
        need_key(order(), choices, ["a==2"]),
        need_key(order(python="3.12"), choices, ["a==1"]),
    }
    assert len(keys) == 3


def test_the_command_refuses_what_cannot_be_before_it_connects(saeq: Saeq) -> None:
    for arguments, words in (
        (("up", "a b"), "names no host"),
        (("up", "box", "--under", "cron"), "--under 'cron' is unknown"),
        (("up", "box", "--env", "NOT_SET_HERE"), "it is not set here"),
        (("up", "box", "--serve-options", "--store x"), "cannot have --store"),
        (("up", "box", "--until", "ended"), "is no stage"),
        (("down", "boks"), "no node 'boks'"),
        (("ls", "--wrong"), "--wrong"),
    ):
        code, _, err = saeq("node", *arguments)
        assert code == 2, arguments
        assert words in err


def test_help_lists_the_commands_without_importing_ssh(saeq: Saeq) -> None:
    code, out, _ = saeq("node", "--help")
    assert code == 0
    for name in ("up", "ls", "down", "logs"):
        assert f"\n  {name} " in out
