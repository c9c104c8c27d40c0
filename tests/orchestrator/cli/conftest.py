"""The command line as a user calls it, in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator import cli

Saeq = Callable[..., tuple[int, str, str]]
"""Arguments of `saeq` to (exit code, stdout, stderr)."""


@pytest.fixture
def saeq(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Saeq:
    """`saeq` in `tmp_path`, whose folder `store` is the store."""
    monkeypatch.setenv("SAEQ_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        out, err = capsys.readouterr()
        return int(str(ended.value.code or 0)), out, err

    return call
