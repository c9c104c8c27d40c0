"""`saeq doctor` as a user calls it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.doctor.base import Check, Finding
from orchestrator.doctor.examination import Examined
from orchestrator.view.doctor_page import doctor_json, doctor_page
from tests.orchestrator.cli.conftest import Saeq

KNOWN = ("machine", "GPUs", "compilers", "versions", "store", "Ray", "nodes", "queue")

PLANTED = {
    "HF_TOKEN": "hf_planted_0123456789abcdef",
    "AWS_SECRET_ACCESS_KEY": "planted/secret/key/of/a/test",
    "WANDB_API_KEY": "planted-wandb-key",
}


@pytest.fixture(autouse=True)
def _nobody_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("RAY_ADDRESS", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    # A machine that tests SLURM has its commands, and no controller that they could ask.
    monkeypatch.delitem(Check.by_name, "slurm", raising=False)


def test_a_healthy_machine_has_no_fault_and_every_check_its_heading(saeq: Saeq) -> None:
    code, out, _ = saeq("doctor")
    assert code == 0, out
    headings = [line for line in out.splitlines() if line and not line.startswith(" ")]
    assert set(KNOWN) <= set(headings)
    assert max(map(len, out.splitlines())) <= 100


def test_json_holds_all_findings_with_level_and_way_out(saeq: Saeq) -> None:
    code, out, _ = saeq("doctor", "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["level"] in ("ok", "note", "warning")
    assert set(KNOWN) <= {check["name"] for check in answer["checks"]}
    finding = answer["checks"][0]["findings"][0]
    assert set(finding) == {"level", "what", "way_out"}


def test_a_fault_makes_the_exit_code_one_and_is_counted(
    saeq: Saeq, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    code, out, _ = saeq("doctor")
    assert code == 1
    assert "FAULT   no Ray cluster answers at 127.0.0.1:9" in out
    assert "1 fault" in out


def test_it_leaves_nothing_behind(saeq: Saeq, tmp_path: Path) -> None:
    (tmp_path / "store" / "queue").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    assert saeq("doctor")[0] == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_no_secret_is_printed(saeq: Saeq, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    for arguments in (["doctor"], ["doctor", "--json"]):
        _, out, err = saeq(*arguments)
        assert "planted" not in out + err


def test_its_own_process_imports_neither_torch_nor_ray(tmp_path: Path) -> None:
    code = (
        "import sys; from orchestrator import cli\n"
        "try: cli.main(['doctor', '--json'])\n"
        "except SystemExit: pass\n"
        "sys.stderr.write(str([m for m in ('torch', 'ray', 'transformers') if m in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "SAEQ_STORE": str(tmp_path / "store")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.endswith("[]")


def test_slurm_without_the_check_of_it_is_refused_with_words(
    saeq: Saeq, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.cli.doctor.SLURM_MODULE", "orchestrator.doctor.no_such")
    code, _, err = saeq("doctor", "--slurm")
    assert code == 2
    assert "has no SLURM check" in err


def test_slurm_sends_a_job_and_shows_what_came_of_it(
    saeq: Saeq, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "slurm_of_a_test.py").write_text(
        "from orchestrator.doctor.base import Finding\n"
        "def try_job(store): return [Finding('fault', 'stuck in environment', 'look at its log')]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("orchestrator.cli.doctor.SLURM_MODULE", "slurm_of_a_test")
    code, out, _ = saeq("doctor", "--slurm")
    assert code == 1
    assert "stuck in environment" in out


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_the_page_fits_and_breaks_no_command(width: int) -> None:
    long = Finding("fault", "a sentence of many words " * 8, "a-command --with-an-option " * 5)
    examined = [Examined("one", (long,), 0.1), Examined("two", (Finding("ok", "well"),), 0.1)]
    lines = [line.plain for line in doctor_page(examined, "/a/store", width)]
    assert max(map(len, lines)) <= width
    assert all(not re.search(r"-$", line) for line in lines)
    assert lines[-1] == "1 fault"


def test_nothing_to_mend_is_said() -> None:
    examined = [Examined("one", (Finding("ok", "well"), Finding("note", "so so")), 0.1)]
    assert doctor_page(examined, "/a/store", 80)[-1].plain == "nothing to mend"
    as_json: dict[str, Any] = doctor_json(examined)
    assert as_json["level"] == "note"


def test_every_check_has_a_place_of_its_own_and_a_deadline() -> None:
    checks = list(Check.by_name.values())
    assert all(0 < check.within_s <= 60 for check in checks)
    assert len({check.name for check in checks}) == len(checks)
