from __future__ import annotations

from pathlib import Path

from orchestrator.store import Store
from tests.orchestrator.running import RunningServe


def test_a_serve_that_has_nothing_to_do_for_so_long_ends(tmp_path: Path) -> None:
    serve = RunningServe(Store.open(str(tmp_path / "store")), tmp_path / "serve.txt")
    with serve.command("--idle-for", "1s") as process:
        assert process.wait(timeout=120) == 0, serve.output
    assert "nothing to do for 1 s" in serve.output
    with serve.command("--idle-for", "soon") as process:
        assert process.wait(timeout=120) == 2
    assert "--idle-for must be a time" in serve.output
