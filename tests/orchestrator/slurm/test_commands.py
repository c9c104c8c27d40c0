"""SLURM's commands as small programs that answer what the real ones did."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from orchestrator.slurm import commands
from orchestrator.slurm.answers import expand_hosts, parse_duration_s
from orchestrator.slurm.commands import NoAnswer, NoSlurm, Refused


class Programs:
    """A folder of programs that is searched before all others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked = folder / "asked"

    def put(self, name: str, out: str = "", err: str = "", code: int = 0) -> None:
        """A program with one answer to everything."""
        (self.folder / f"{name}.out").write_text(out)
        (self.folder / f"{name}.err").write_text(err)
        program = self.folder / name
        program.write_text(
            f'#!/bin/sh\nprintf "%s|" {name} "$@" >>"{self.asked}"\nenv >"{self.folder}/env"\n'
            f'cat "{program}.out"\ncat "{program}.err" >&2\nexit {code}\n'
        )
        program.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Nothing of a SLURM that is here by chance is found."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    found = Programs(tmp_path)
    for name in ("sbatch", "squeue", "scontrol", "scancel", "sacct", "sinfo"):
        found.put(name, err=f"{name}: error: not expected\n", code=1)
    return found


def line(*fields: str) -> str:
    return commands.SEPARATOR.join(fields) + "\n"


RUNNING = line(
    "12_3", "RUNNING", "gpu[01-02]", "gpu", "2026-11-21T10:00:00", "2026-11-21T10:05:00",
    "1-02:03:04", "2-00:00:00", "None", "saeq:/home/a|b/up:1f", "saeq-a|b",
)  # fmt: skip
WAITING = line(
    "13", "PENDING", "", "gpu", "2026-11-21T10:00:00", "N/A", "10:00", "10:00",
    "ReqNodeNotAvail, UnavailableNodes:n[1-2]", "(null)", "other",
)  # fmt: skip


def test_a_job_is_read_as_squeue_lists_it(programs: Programs) -> None:
    programs.put("squeue", RUNNING + WAITING + "garbage\n")

    first, second = commands.jobs()

    assert first.hosts == ("gpu01", "gpu02")
    assert first.left_s == 26 * 3600 + 3 * 60 + 4
    assert (first.reason, first.comment, first.name) == ("", "saeq:/home/a|b/up:1f", "saeq-a|b")
    assert first.goes
    assert first.starts_at is not None
    assert first.submitted_at == first.starts_at - 300
    assert second.waits
    assert second.starts_at is None
    assert second.reason == "ReqNodeNotAvail, UnavailableNodes:n[1-2]"
    assert second.comment == ""


def test_an_arrays_id_stands_for_its_tasks(programs: Programs) -> None:
    programs.put("squeue", RUNNING + WAITING)

    assert [job.id for job in commands.jobs(["12"])] == ["12_3"]
    assert [job.id for job in commands.jobs(["13", "99"])] == ["13"]
    assert "--array" in programs.asked.read_text().split("|")


def test_a_submission_answers_with_the_id(programs: Programs) -> None:
    programs.put("sbatch", "some banner of the cluster\n4711;cluster\n")

    assert commands.submit(Path("job.sh"), ["--comment=x"]) == "4711"
    assert programs.asked.read_text() == "sbatch|--parsable|--comment=x|job.sh|"


def test_a_refusal_keeps_slurms_words_and_says_what_to_do(programs: Programs) -> None:
    programs.put(
        "sbatch",
        err="sbatch: error: invalid partition specified: nope\n"
        "sbatch: error: Batch job submission failed: Invalid partition name specified\n",
        code=1,
    )

    with pytest.raises(Refused) as refused:
        commands.submit(Path("job.sh"))

    assert "invalid partition specified: nope; Batch job" in str(refused.value)
    assert "--partition" in str(refused.value)
    assert "sbatch: error" not in str(refused.value)


@pytest.mark.parametrize(
    "words",
    [
        "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
        "slurm_load_jobs error: Socket timed out on send/recv operation",
        'error: Munge encode failed: Failed to access "/run/munge/munge.socket.2"',
    ],
)
def test_a_controller_that_is_away_is_no_refusal(programs: Programs, words: str) -> None:
    programs.put("squeue", err=words, code=1)

    with pytest.raises(NoAnswer, match="scontrol ping"):
        commands.jobs()


def test_a_command_that_hangs_is_given_up(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    (programs.folder / "squeue").write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(commands, "ANSWER_WITHIN_S", 0.3)

    with pytest.raises(NoAnswer, match="nothing within"):
        commands.jobs()


def test_a_machine_without_slurm_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")

    with pytest.raises(NoSlurm, match="login node"):
        commands.jobs()


DETAILS = (
    "JobId=7 JobName=a b UserId=root(0) Priority=1 JobState=FAILED Reason=NonZeroExitCode "
    "Dependency=(null) Requeue=1 Restarts=2 BatchFlag=1 ExitCode=3:9 ExcNodeList=n[1,3] "
    "NodeList=n2 BatchHost=n2 StdErr=/a b/7.log StdOut=/a b/7.log Power=\n"
)


def test_details_come_from_scontrol(programs: Programs) -> None:
    programs.put("scontrol", DETAILS)

    found = commands.details("7")

    assert found is not None
    assert (found.state, found.reason, found.restarts) == ("FAILED", "NonZeroExitCode", 2)
    assert (found.exit_code, found.signal) == (3, 9)
    assert (found.hosts, found.excluded) == (("n2",), ("n1", "n3"))
    assert found.output == "/a b/7.log"


@pytest.mark.parametrize(
    "words", ["slurm_load_jobs error: Invalid job id specified\n", "Job 7 not found\n"]
)
def test_accounting_is_asked_only_for_what_scontrol_has_forgotten(
    programs: Programs, words: str
) -> None:
    programs.put("scontrol", err=words, code=1)
    assert commands.details("7") is None, "there is no accounting here"

    programs.put("sacct", "7|CANCELLED by 1000|None|0:15|1|n[1-2]\n")
    found = commands.details("7")

    assert found is not None
    assert (found.state, found.signal, found.hosts) == ("CANCELLED", 15, ("n1", "n2"))


def test_a_job_around_us_passes_nothing_on(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs.put("sbatch", "1\n")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "1")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")

    commands.submit(Path("job.sh"))

    seen = (programs.folder / "env").read_text()
    assert "SLURM_MEM_PER_NODE" not in seen
    assert "SLURM_CONF=/etc/slurm.conf" in seen


def test_partitions_and_drained_nodes_come_from_sinfo(programs: Programs) -> None:
    programs.put(
        "sinfo", line("gpu*", "2-00:00:00", "n1", "idle") + line("cpu", "infinite", "n2", "down")
    )
    gpu, cpu = commands.partitions()
    assert (gpu.name, gpu.is_default, gpu.limit_s, gpu.hosts) == (
        "gpu", True, 172800.0, {"n1": "idle"},
    )  # fmt: skip
    assert (cpu.name, cpu.is_default, cpu.limit_s) == ("cpu", False, None)

    programs.put("sinfo", line("n2", "down*", "Not responding"))
    assert commands.drained() == {"n2": "down: Not responding"}
    assert commands.drained(["n1"]) == {}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 1800.0), ("10:00", 600.0), ("1:00:00", 3600.0), ("2-01:00:00", 176400.0),
     ("UNLIMITED", None), ("NOT_SET", None), ("INVALID", None), ("infinite", None)],
)  # fmt: skip
def test_durations_are_read_as_slurm_writes_them(text: str, seconds: float | None) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("n1", ("n1",)),
        ("n[1-3,7]", ("n1", "n2", "n3", "n7")),
        ("gpu[008-010],login", ("gpu008", "gpu009", "gpu010", "login")),
        ("r[1-2]n[1-2]", ("r1n1", "r1n2", "r2n1", "r2n2")),
        ("r1n[1-2]-ib,x", ("r1n1-ib", "r1n2-ib", "x")),
        ("", ()),
        ("(null)", ()),
    ],
)
def test_names_of_nodes_are_unfolded(text: str, names: tuple[str, ...]) -> None:
    assert expand_hosts(text) == names


def test_names_are_unfolded_as_scontrol_does_it(tmp_path: Path) -> None:
    import shutil

    if shutil.which("scontrol") is None:
        pytest.skip("no scontrol on this machine (Debian: apt-get install slurm-wlm)")
    config = tmp_path / "slurm.conf"
    config.write_text("ClusterName=x\nSlurmctldHost=localhost\n")
    text = "a[1-3,05-07],b,c[1-2]d[3-4],e[10-11]"
    done = subprocess.run(
        ["scontrol", "show", "hostnames", text],
        env={"PATH": "/usr/bin:/bin", "SLURM_CONF": str(config)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert list(expand_hosts(text)) == done.stdout.split()
