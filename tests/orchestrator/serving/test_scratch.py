"""Folders of processes that were killed are removed; those of the living are not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from orchestrator.serving.scratch import LOCK, ScratchFolder, remove_left_overs


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_left_overs_go_and_what_is_in_use_stays(tmp_path: Path) -> None:
    ours = ScratchFolder("drivers", str(tmp_path))
    left_over = tmp_path / f"saeq-ray-{dead_pid()}-abc"
    (left_over / "session").mkdir(parents=True)
    somebody_elses = tmp_path / f"saeq-other-{dead_pid()}-abc"
    somebody_elses.mkdir()
    assert remove_left_overs((str(tmp_path),)) == [left_over]
    assert ours.path.exists() and somebody_elses.exists()
    ours.remove()
    assert not ours.path.exists()


def test_a_lock_is_believed_more_than_a_number(tmp_path: Path) -> None:
    """Containers that share /tmp have numbers of their own."""
    ours = ScratchFolder("ray", str(tmp_path))
    seen_from_elsewhere = tmp_path / f"saeq-ray-{dead_pid()}-abc"
    seen_from_elsewhere.mkdir()
    (seen_from_elsewhere / LOCK).hardlink_to(ours.path / LOCK)
    assert remove_left_overs((str(tmp_path),)) == []
    ours.remove()
    assert remove_left_overs((str(tmp_path),)) == [seen_from_elsewhere]
