"""A secret in the environment turns up nowhere in the store, whatever fails and says it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.orchestrator.running import RunningSweep

pytestmark = pytest.mark.slow

SECRET = "planted-f00d-cafe"


def test_a_failing_trial_tells_all_but_the_secret(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its error names a path with the secret in it: a checkpoint that no member can go on from."""
    temporary = tmp_path / SECRET
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setenv("PLANTED_API_TOKEN", SECRET)
    sweep = RunningSweep(tmp_path, tiny_model, tokens="20k", report="10k", lrs="1.0e-3", members=2)
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "state.json").write_text("no checkpoint")
    sweep.store.put_files(bad, sweep.store.layout.checkpoint(sweep.id, "t0000", 256, 1))
    sweep.run()
    trials = sweep.state().trials
    assert trials["t0000"].status == "failed", sweep.output[-3000:]
    assert "<PLANTED_API_TOKEN>" in trials["t0000"].reason
    assert "BadCheckpoint" in trials["t0000"].traceback
    printed = sweep.store.backend.get(sweep.store.layout.trial_output(sweep.id, "t0000", 1))
    assert b"<PLANTED_API_TOKEN>" in printed
    assert b"Traceback" in printed
    assert trials["t0001"].status == "finished"
    assert b"finished: artefact" in sweep.store.backend.get(
        sweep.store.layout.trial_output(sweep.id, "t0001", 1)
    )
    for entry in sweep.store.backend.entries(""):
        assert SECRET.encode() not in sweep.store.backend.get(entry.key), entry.key
