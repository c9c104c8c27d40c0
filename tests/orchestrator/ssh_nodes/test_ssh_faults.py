"""What ssh says becomes what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.ssh_nodes.connection import SshConnection
from orchestrator.ssh_nodes.ssh_faults import ConnectionLost, SshFailed, explained
from orchestrator.ssh_nodes.target import SshTarget


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("@@@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @@@", "ssh-keygen -R '[box]:2222'"),
        ("root@box: Permission denied (publickey).", "--identity FILE"),
        ("ssh: Could not resolve hostname box: Name or service not known", "no host of that name"),
        ("ssh: connect to host box port 2222: Connection refused", "--port N"),
        ("ssh: connect to host box port 2222: Connection timed out", "behind NAT"),
        ("ssh: connect to host box port 2222: No route to host", "does not answer"),
        ("kex_exchange_identification: Connection closed by remote host", "try again in a minute"),
        ("command-line: line 0: Bad configuration option: foo", "--ssh-option"),
        ("Something new", "`ssh -p 2222 root@box true` by hand"),
        ("", "it says nothing"),
    ],
)
def test_each_way_to_fail_has_a_way_out(said: str, words: str) -> None:
    assert words in str(explained(SshTarget.parse("root@box", 2222), said))


@pytest.fixture
def play_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In place of `ssh`: the master stays, and a command runs here."""
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/bash\n"
        'printf "%s\\n" "$*" >>"$0.log"\n'
        'while [ "$1" != -S ]; do shift; done\n'
        'socket=$2; case " $* " in *" -M "*) touch "$socket"; exec sleep 600 ;; esac\n'
        'exec bash -c "${@: -1}"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return program.with_name("ssh.log")


def test_a_script_and_its_arguments_are_on_no_command_line(play_ssh: Path) -> None:
    with SshConnection(SshTarget.parse("root@box", 2222)) as connection:
        answer = connection.run('printf "%s|" "$@"\nexit 3\n', ["a b", "it's", ""])
    assert (answer.exit_code, answer.output) == (3, "a b|it's||")
    lines = play_ssh.read_text().splitlines()
    assert len(lines) == 2
    assert "it's" not in "".join(lines)
    assert all("BatchMode=yes" in line and "-p 2222" in line for line in lines)


def test_a_line_that_breaks_is_told_apart_from_one_that_never_was(play_ssh: Path) -> None:
    del play_ssh
    with SshConnection(SshTarget.parse("box")) as connection:
        with pytest.raises(ConnectionLost, match="goes on"):
            connection.run("echo 'Connection reset by peer' >&2; exit 255")
        with pytest.raises(ConnectionLost, match="did not answer within"):
            connection.run("sleep 60", within_s=0.3)


def test_a_host_that_lets_nobody_in_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "ssh"
    program.write_text(
        '#!/bin/bash\nwhile [ "$1" != -S ]; do shift; done; dirname "$2" >"$0.folder"\n'
        "echo 'x: Permission denied (publickey).' >&2; exit 255\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(SshFailed, match="does not accept the key"):
        SshConnection(SshTarget.parse("box")).__enter__()
    assert not Path((tmp_path / "ssh.folder").read_text().strip()).exists()
