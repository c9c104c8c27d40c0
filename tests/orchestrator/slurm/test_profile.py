from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.slurm.options import WorkerOptions
from orchestrator.slurm.profile import BadOptions, find_file, folder_in_profile, load_options

LAB = """
[tool.saeq.slurm]
partition = "gpu"
gpus = "a100:2"
time = "04:00:00"
setup = "env.sh"
environment = {HF_HOME = "/scratch/hf"}
sbatch = {reservation = "lab"}

[tool.saeq.slurm.profiles.debug]
partition = "short"
time = "20m"
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without any profile."""
    monkeypatch.delenv("SAEQ_PROFILE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def project(home: Path, tmp_path: Path) -> Path:
    """A folder two levels below one with the lab's file."""
    del home
    (tmp_path / "saeq.toml").write_text(LAB)
    (tmp_path / "env.sh").write_text("module load cuda\n")
    folder = tmp_path / "project" / "sweeps"
    folder.mkdir(parents=True)
    return folder


def test_without_a_file_the_command_line_is_all_there_is(home: Path, tmp_path: Path) -> None:
    del home
    assert load_options({"jobs": "2"}, start=tmp_path) == WorkerOptions(jobs=2)


def test_the_nearest_file_upward_is_read_and_the_command_line_overrules_it(project: Path) -> None:
    options = load_options({"gpus": "1", "jobs": "3"}, start=project)
    assert (options.partition, options.time_s, options.gpus, options.jobs) == (
        "gpu",
        14_400,
        "1",
        3,
    )
    assert options.setup == project.parents[1] / "env.sh", "as seen from the file"


def test_a_named_profile_overrules_what_holds_for_all(project: Path) -> None:
    options = load_options({}, "debug", project)
    assert (options.partition, options.time_s, options.gpus) == ("short", 1_200, "a100:2")


def test_tables_are_put_together(project: Path) -> None:
    said = {"environment": {"X": "1"}, "sbatch": ["comment=a", "reservation=mine"]}
    options = load_options(said, start=project)
    assert options.environment == {"HF_HOME": "/scratch/hf", "X": "1"}
    assert options.sbatch == {"reservation": "mine", "comment": "a"}


def test_a_nearer_pyproject_that_says_nothing_of_slurm_is_passed_over(project: Path) -> None:
    (project / "pyproject.toml").write_text(
        '[tool.ruff]\nline-length = 100\n[tool.saeq]\nx = "y"\n'
    )
    found = find_file(project)
    assert found is not None
    assert found.path == project.parents[1] / "saeq.toml"


def test_the_users_own_file_comes_last_and_the_named_one_first(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = home / ".config" / "saeq" / "config.toml"
    own.parent.mkdir(parents=True)
    own.write_text('[tool.saeq.slurm]\nqos = "own"\nfolder = "~/slurm"\n')
    assert load_options({}, start=tmp_path).qos == "own"
    assert folder_in_profile(tmp_path) == home / "slurm"
    named = tmp_path / "lab.toml"
    named.write_text('[tool.saeq.slurm]\nqos = "lab"\n[tool.saeq.slurm.profiles.a]\nqos = "a"\n')
    monkeypatch.setenv("SAEQ_PROFILE", str(named))
    assert load_options({}, start=tmp_path).qos == "lab"
    monkeypatch.delenv("SAEQ_PROFILE")
    assert load_options({}, str(named), tmp_path).qos == "lab"
    assert load_options({}, f"{named}:a", tmp_path).qos == "a"


def test_every_fault_is_told_at_once_with_its_place(home: Path, tmp_path: Path) -> None:
    del home
    file = tmp_path / "saeq.toml"
    file.write_text(
        '[tool.saeq.slurm]\npartiton = "gpu"\nmemory = "64GB"\nsetup = "no.sh"\n\n'
        '[tool.saeq.slurm.profiles.debug]\ntime = "four"\n'
    )
    with pytest.raises(BadOptions) as caught:
        load_options({"gpus": "x", "elastik": "0:8"}, "debug", tmp_path)
    text = str(caught.value)
    assert (
        f"{file}:2: partiton: unknown key; rename or remove it. Did you mean 'partition'?" in text
    )
    assert f"{file}:3: memory: must be memory with a unit of K, M, G or T; got '64GB'" in text
    assert f"{file}:4: setup: there is no such file" in text
    assert f"{file}:7: time: must be a time; got 'four'; write 04:00:00" in text
    assert "--gpus: must be a number of GPUs, perhaps with a type; got 'x'; write 2" in text
    assert "--elastik: unknown key; rename or remove it. Did you mean 'elastic'?" in text
    assert len(caught.value.faults) == 6


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tool.saeq.slurm", "is no TOML"),
        ("[slurm]\njobs = 1", r"write \[tool.saeq.slurm\]"),
        ("[tool.saeq.slrum]\njobs = 1", r"Did you mean \[tool.saeq.slurm\]"),
        ("[tool.saeq]\nslurm = 1", "must be a table"),
        ("[tool.saeq.slurm]\nprofiles = 1", "must be tables"),
        ("[tool.saeq.slurm.profiles]\ndebug = 1", "must be a table of options"),
    ],
)
def test_a_file_of_another_shape_is_refused(
    home: Path, tmp_path: Path, text: str, words: str
) -> None:
    del home
    (tmp_path / "saeq.toml").write_text(text)
    with pytest.raises(BadOptions, match=words):
        load_options({}, start=tmp_path)


def test_a_profile_that_is_not_there_is_refused_with_those_that_are(project: Path) -> None:
    with pytest.raises(BadOptions, match="it has: debug. Did you mean 'debug'"):
        load_options({}, "debgu", project)


def test_a_profile_without_any_file_is_refused(home: Path, tmp_path: Path) -> None:
    del home
    with pytest.raises(BadOptions, match="no file with profiles"):
        load_options({}, "debug", tmp_path)


def test_a_named_file_without_the_table_is_refused(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del home
    (tmp_path / "empty.toml").write_text("")
    monkeypatch.setenv("SAEQ_PROFILE", str(tmp_path / "empty.toml"))
    with pytest.raises(BadOptions, match=r"SAEQ_PROFILE=.* has no \[tool.saeq.slurm\]"):
        load_options({}, start=tmp_path)
    monkeypatch.setenv("SAEQ_PROFILE", str(tmp_path / "none.toml"))
    with pytest.raises(BadOptions, match="cannot be read: No such file"):
        load_options({}, start=tmp_path)
