"""The scripts that run on a host, run here: installing, keeping serve alive, the survey."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest

from orchestrator.ssh_nodes.code_here import CodeHere
from orchestrator.ssh_nodes.order import NodeOrder
from orchestrator.ssh_nodes.parcel import SCRIPTS, packed, script, unpack_and_launch
from orchestrator.ssh_nodes.survey import Machine

FOLDER = Path(str(files("orchestrator.ssh_nodes"))) / "host"
ALL = sorted(path.name for path in FOLDER.glob("*.sh"))
LONG_S = 120.0


def bash(text: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", text],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=LONG_S,
        check=False,
    )


def until(seen: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LONG_S
    while not seen():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.mark.parametrize("name", ALL)
def test_every_script_is_sound_bash(name: str) -> None:
    checked = subprocess.run(["bash", "-n", str(FOLDER / name)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert checked.stderr == ""
    assert (FOLDER / name).read_text().isascii()


def test_the_survey_of_this_machine_is_understood(tmp_path: Path) -> None:
    head = f"set -- {tmp_path}/new/folder '' '' 0 {tmp_path}/nowhere\n"
    answer = bash(head + script("node_state.sh", "survey.sh"), tmp_path)
    found = Machine.parse(answer.stdout)
    assert answer.returncode == 0, answer.stderr
    assert found.system.startswith("Linux")
    assert found.root == f"{tmp_path}/new/folder"
    assert found.free_mib
    assert found.store_folder == "no"
    assert abs(found.clock - time.time()) < 60
    assert not (tmp_path / "new").exists(), "a survey changes nothing"


def test_what_is_sent_is_for_nobody_elses_eyes_and_not_on_a_command_line(tmp_path: Path) -> None:
    code = CodeHere(tmp_path, "9.9", ("ray",))
    (tmp_path / "sae").mkdir()
    (tmp_path / "sae" / "x.py").write_text("")
    parcel = packed(code, {"env": "AWS_SECRET_ACCESS_KEY=hush\n"})
    into = tmp_path / "into"
    into.mkdir()
    subprocess.run(["tar", "-xzf", "-"], input=parcel, cwd=into, check=True)
    assert (into / "node/env").stat().st_mode & 0o777 == 0o600
    assert (into / "code/sae/x.py").exists()
    assert "Requires-Dist: ray" in (into / "code/saeq-9.9.dist-info/METADATA").read_text()
    assert {path.name for path in (into / "scripts").glob("*.sh")} == set(SCRIPTS)
    assert "hush" not in unpack_and_launch("~/.saeq", restart=True)


def test_settings_survive_the_shell(tmp_path: Path) -> None:
    order = NodeOrder(
        name="box",
        machine="me@box:1",
        store="s3://b/p?endpoint_url=http://h:1&region=x",
        setup='echo "it\'s" $HOME',
        serve_options=("--notices", "command:cat /run/x"),
    )
    settings = order.settings(code="c", version="1", torch="2", need="n")
    told = bash(settings + 'printf "%s\\n" "$STORE" "$SETUP" "${SERVE_OPTIONS[@]}"', tmp_path)
    assert told.stdout.splitlines() == [order.store, order.setup, *order.serve_options]


class Installing:
    """environment.sh with three tiny packages in place of the real ones."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("node", "environments", "scripts", "wheels"):
            (root / name).mkdir(parents=True)
        for name, version in (("torch", "2.0"), ("ray", "1.0"), ("boto3", "1.0")):
            _wheel(root / "wheels", name, version)
        (root / "scripts/requirements.txt").write_text("ray\nboto3\n")
        (root / "scripts/constraints.txt").write_text("ray==1.0\nboto3==1.0\n")

    @property
    def place(self) -> Path:
        return self.root / "environments/key"

    def run(self, **changes: str) -> subprocess.CompletedProcess[str]:
        values = {
            "ENVIRONMENT": "", "NEED": "key", "MAKE_WITH": "venv", "BASE_PYTHON": sys.executable,
            "PYTHON_VERSION": "", "TORCH": "2.0", "TORCH_INDEX": "", "DEVICE": "cuda", **changes,
        }  # fmt: skip
        program = (
            f"set -euo pipefail\nexec 3>&1\nroot={self.root}\n"
            'failed() { echo "FAILED $*" >&3; exit 1; }\n'
            + script("node_state.sh", "environment.sh")
            + '\nfind_python >"$root/node/start.log" 2>&1\n'
            'echo "python $python"\n'
        )
        found = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.root / "wheels")}
        quiet = {"PIP_EXTRA_INDEX_URL": "", "PIP_CONFIG_FILE": os.devnull}
        return bash(program, self.root, **values, **found, **quiet)


@pytest.fixture
def installing(tmp_path: Path) -> Installing:
    return Installing(tmp_path / "root")


@pytest.mark.slow
def test_an_environment_is_made_once_and_found_again(installing: Installing) -> None:
    first = installing.run()
    assert first.stdout == f"python {installing.place}/bin/python\n", first.stdout + first.stderr
    assert (installing.place / "ready").exists()
    shown = installing.run(BASE_PYTHON="/nowhere/python")
    assert shown.stdout == first.stdout, "nothing is made a second time"
    (installing.place / "ready").unlink()
    again = installing.run(BASE_PYTHON="/nowhere/python")
    assert again.stdout == first.stdout, "a cut-off one is gone on with"
    assert (installing.place / "ready").exists()


@pytest.mark.slow
def test_half_an_environment_never_leads_to_the_machines_own_python(installing: Installing) -> None:
    assert installing.run().returncode == 0
    (installing.place / "ready").unlink()
    (installing.place / "pyvenv.cfg").unlink()  # as a removal leaves it that was cut off
    again = installing.run()
    assert again.returncode == 0, again.stdout + again.stderr
    assert (installing.place / "pyvenv.cfg").exists(), "made anew"
    python = str(installing.place / "bin/python")
    told = subprocess.run(
        [python, "-c", "import sys, ray; print(sys.prefix, ray.__file__)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert told.startswith(str(installing.place))
    assert str(installing.place) in told.split()[1]


def test_pip_itself_refuses_whatever_is_no_virtual_environment(tmp_path: Path) -> None:
    (tmp_path / "python").write_text('#!/bin/bash\necho "$PIP_REQUIRE_VIRTUALENV $*"\n')
    (tmp_path / "python").chmod(0o755)
    program = script("environment.sh") + "\npython=./python\ninstall ray\n"
    told = bash(program, tmp_path)
    assert told.stdout.startswith("1 -m pip install")


@pytest.mark.slow
def test_a_failed_installation_says_what_pip_said(installing: Installing) -> None:
    (installing.root / "scripts/requirements.txt").write_text("no-such-package\n")
    failed = installing.run()
    assert failed.returncode == 1
    assert "FAILED environment packages could not be installed: ERROR:" in failed.stdout
    assert not (installing.place / "ready").exists()


def test_a_given_environment_is_used_as_it_is_or_refused(installing: Installing) -> None:
    used = installing.run(ENVIRONMENT=sys.prefix)
    assert used.stdout == f"python {sys.prefix}/bin/python\n"
    refused = installing.run(ENVIRONMENT="/nowhere")
    assert "there is no /nowhere/bin/python here" in refused.stdout


class Kept:
    """serve.sh with a program in place of Python that does as it is told."""

    def __init__(self, root: Path, program: str) -> None:
        self.root = root
        for name in ("node", "work", "scripts"):
            (root / name).mkdir(parents=True)
        (root / "scripts/node_state.sh").write_text(script("node_state.sh"))
        order = NodeOrder(name="kept-by-a-test", machine="m", store="/store")
        (root / "node/settings").write_text(
            order.settings(code="c", version="1", torch="2", need="n")
        )
        (root / "node/env").write_text("HUSH='a b'\n")
        python = root / "python"
        python.write_text(f"#!/bin/bash\n{program}\n")
        python.chmod(0o755)
        (root / "node/python").write_text(f"{python}\n")
        self.process = subprocess.Popen(
            ["bash", str(FOLDER / "serve.sh"), str(root)],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def log(self) -> str:
        path = self.root / "node/serve.log"
        return path.read_text() if path.exists() else ""

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def test_serve_is_started_again_with_all_that_it_needs(tmp_path: Path) -> None:
    program = (
        'echo "begun $SAEQ_NODE $SAEQ_NODE_KIND $SAEQ_NODE_HOST $HUSH $*"; '
        "trap 'exit 0' TERM; sleep 0.1; exit 7"
    )
    kept = Kept(tmp_path / "root", program)
    try:
        until(lambda: kept.log.count("begun") >= 2, "a second start")
        begun = "begun kept-by-a-test ssh m a b -m orchestrator.cli serve --plain --store /store"
        assert begun in kept.log
        assert "exit code 7; starting it again in 2 s" in kept.log
        deaths = (kept.root / "node/deaths").read_text().split()
        assert deaths[1] == "7"
    finally:
        kept.end()


def test_a_keeper_that_is_told_to_stop_waits_for_serve_to_give_its_trials_back(
    tmp_path: Path,
) -> None:
    program = "trap 'sleep 0.5; echo given back; exit 0' TERM; echo up; while :; do sleep 0.1; done"
    kept = Kept(tmp_path / "root", program)
    try:
        until(lambda: "up" in kept.log, "a start")
        kept.process.terminate()
        assert kept.process.wait(timeout=LONG_S) == 0
        assert kept.log.splitlines() == ["up", "given back"]
        assert not (kept.root / "node/pid").exists()
    finally:
        kept.end()


def test_serve_that_was_to_end_by_itself_is_left_ended(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "root", "echo over; exit 0")
    try:
        assert kept.process.wait(timeout=LONG_S) == 0
        assert kept.log == "over\n"
    finally:
        kept.end()


def test_what_hides_the_nodes_variable_is_found_by_where_it_works(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    named = ["bash", "-c", "exec -a ray::DashboardAgent sleep 300"]
    started = [
        subprocess.Popen(["sleep", "300"], env={"SAEQ_NODE": "hidden-by-a-test"}),
        subprocess.Popen(named, cwd=tmp_path / "work"),
        subprocess.Popen(["sleep", "300"], cwd=tmp_path / "work"),  # somebody who looks around
        subprocess.Popen(named, cwd=tmp_path),  # another node's
    ]
    try:
        program = f"root={tmp_path}\n{script('node_state.sh')}\nprocesses_of hidden-by-a-test\n"
        wanted = {str(process.pid) for process in started[:2]}
        until(lambda: set(bash(program, tmp_path).stdout.split()) == wanted, "both, and no more")
    finally:
        for process in started:
            process.kill()
            process.wait()


def _keeping(folder: Path, **programs: str) -> subprocess.CompletedProcess[str]:
    """keep.sh with programs of ours in place of systemd's and tmux."""
    for name in ("node", "bin", "scripts", "home"):
        (folder / name).mkdir()
    (folder / "scripts/serve.sh").write_text("")
    for name, text in programs.items():
        (folder / "bin" / name).write_text(
            f'#!/bin/bash\necho "{name} $*" >>"$HOME/calls"\n{text}\n'
        )
        (folder / "bin" / name).chmod(0o755)
    program = f"set -euo pipefail\nroot={folder}\nNODE=box\nUNDER=auto\n"
    program += script("node_state.sh", "keep.sh") + "\nstart_keeper\ncat node/under\n"
    path = f"{folder}/bin:{os.environ['PATH']}"
    return bash(program, folder, HOME=str(folder / "home"), PATH=path)


def test_systemd_is_used_where_it_outlives_the_session(tmp_path: Path) -> None:
    told = _keeping(
        tmp_path, systemctl='[ "$2" != is-system-running ] || echo degraded', loginctl="echo yes"
    )
    assert told.stdout == "systemd\n", told.stderr
    unit = (tmp_path / "home/.config/systemd/user/saeq-box.service").read_text()
    assert f'ExecStart=/usr/bin/env bash "{tmp_path}/scripts/serve.sh" "{tmp_path}"' in unit
    assert "Environment=SAEQ_NODE=box" in unit
    assert "systemctl --user enable saeq-box.service" in (tmp_path / "home/calls").read_text()


def test_without_lingering_systemd_is_left_out_and_tmux_comes_next(tmp_path: Path) -> None:
    told = _keeping(
        tmp_path,
        systemctl='[ "$2" != is-system-running ] || echo running',
        loginctl='[ "$1" != enable-linger ] || exit 1; echo no',
        tmux="true",
    )
    assert told.stdout == "tmux\n", told.stderr
    assert "tmux -L saeq-box new-session -d -s serve" in (tmp_path / "home/calls").read_text()


def test_a_service_that_systemd_refuses_runs_without_it(tmp_path: Path) -> None:
    refusing = "case $2 in is-system-running) echo running ;; enable) exit 1 ;; esac"
    told = _keeping(tmp_path, systemctl=refusing, loginctl="echo yes")
    assert told.stdout.splitlines()[-1] == "nohup", told.stderr


def _wheel(folder: Path, name: str, version: str) -> None:
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", f"__version__ = {version!r}\n")
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
