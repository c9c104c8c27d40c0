from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.nodes.presence import Presence
from orchestrator.nodes.stages import Mark, parse_lines
from orchestrator.nodes.stages_file import append_failure, append_mark
from orchestrator.store import Store


def test_without_a_file_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAEQ_STAGES", raising=False)
    append_mark(Mark("ray", 1.0, "n1"))


def test_what_python_comes_to_is_added_to_the_scripts_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "stages"
    file.write_text(Mark("script", 1.0, "n1").to_line() + "\n")
    monkeypatch.setenv("SAEQ_STAGES", str(file))
    presence = Presence(Store.open(str(tmp_path / "store")), "slurm-7", "slurm")
    presence.mark("ray", "127.0.0.1:1")
    presence.mark("ray", "again")
    assert [mark.stage for mark in parse_lines(file.read_text())] == ["script", "ray"]
    append_failure("n1", "lease", "two\nlines")
    assert file.read_text().splitlines()[-1].endswith("n1 failed lease: two lines")


def test_a_file_that_cannot_be_written_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SAEQ_STAGES", str(tmp_path / "none" / "stages"))
    append_mark(Mark("ray", 1.0, "n1"))
    assert "was not told of a stage" in caplog.text
