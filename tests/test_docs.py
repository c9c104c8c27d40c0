"""The documents keep their word: links lead somewhere, code blocks run, examples parse."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.file_tree import files_tree, readme_tree, with_tree

ROOT = Path(__file__).parents[1]

PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
)

LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
CODE_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _relative_links(page: Path) -> list[str]:
    without_code = CODE_BLOCK.sub("", page.read_text())
    targets = [first or second for first, second in LINK.findall(without_code)]
    return [
        target for target in targets if "://" not in target and not target.startswith("mailto:")
    ]


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+\s+(.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in _relative_links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            broken.append(f"{link}: no such file")
        elif anchor and target.suffix == ".md" and anchor not in _anchors(target):
            broken.append(f"{link}: no such heading")
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_documents_are_ascii(page: Path) -> None:
    odd = sorted({character for character in page.read_text() if not character.isascii()})
    assert not odd


@pytest.mark.parametrize(
    ("page", "tree"), [("README.md", readme_tree), ("docs/files.md", files_tree)]
)
def test_the_file_trees_are_those_of_the_folders(page: str, tree: Callable[[], str]) -> None:
    """After a change of files: `python -m tests.file_tree`."""
    text = (ROOT / page).read_text()
    assert with_tree(text, tree()) == text


def test_the_job_kind_of_the_guide_runs(tmp_path: Path) -> None:
    """The guide's Python blocks, in order, are one program; it checks itself with asserts."""
    text = (ROOT / "docs" / "adding_a_job_kind.md").read_text()
    blocks = [body for language, body in CODE_BLOCK.findall(text) if language == "python"]
    assert blocks
    program = tmp_path / "guide.py"
    program.write_text("\n".join(blocks))
    answer = subprocess.run(
        [sys.executable, str(program)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize(
    "block",
    [
        body
        for page in PAGES
        for language, body in CODE_BLOCK.findall(page.read_text())
        if language == "yaml" and re.search(r"^job:", body, re.MULTILINE)
    ],
)
def test_sweep_files_in_the_documents_are_valid(block: str) -> None:
    from orchestrator.spec.sweep import parse_sweep

    parse_sweep(block, "in a document")


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda p: p.name)
def test_the_examples_are_valid(path: Path) -> None:
    from orchestrator.spec.sweep import load_sweep

    load_sweep(path)


def test_the_plan_in_the_json_page_has_the_keys_of_a_plan() -> None:
    from orchestrator.planning.calibration import Calibration
    from orchestrator.planning.plan import DevicePlan, Plan

    text = (ROOT / "docs" / "json.md").read_text()
    blocks = [json.loads(body) for language, body in CODE_BLOCK.findall(text) if language == "json"]
    shown = next(block for block in blocks if "devices" in block)
    assert set(shown) == set(Plan.model_fields)
    assert set(shown["devices"][0]) == set(DevicePlan.model_fields)
    assert Plan.model_validate(shown).trials == 12
    assert all(f"`{name}`" in text for name in Calibration.model_fields)


def _known_commands() -> list[str]:
    """Those that `saeq --help` lists: a command whose module is still to come is not documented."""
    import typer

    from orchestrator.cli import build_app

    app = build_app()
    return list(app.list_commands(typer.Context(app)))


def test_every_command_is_named_in_the_documents() -> None:
    text = "\n".join(page.read_text() for page in PAGES if page.name != "CHANGELOG.md")
    missing = [name for name in _known_commands() if not re.search(rf"\bsaeq {name}\b", text)]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_consoles_show_are_commands(page: Path) -> None:
    """The lines that begin with `$ saeq`, each with a command that there is."""
    consoles = [body for language, body in CODE_BLOCK.findall(page.read_text())
                if language == "console"]  # fmt: skip
    named = re.findall(r"^\$ saeq ([a-z]+)", "\n".join(consoles), re.MULTILINE)
    assert set(named) <= set(_known_commands())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_json_in_the_documents_is_json(page: Path) -> None:
    for language, body in CODE_BLOCK.findall(page.read_text()):
        if language == "json":
            json.loads(body)


def test_every_example_is_presented_in_the_readme() -> None:
    linked = set(_relative_links(ROOT / "README.md"))
    assert {f"examples/{path.name}" for path in (ROOT / "examples").glob("*.yaml")} <= linked


def test_every_benchmark_is_presented() -> None:
    """`report.py` is what the others have in common."""
    linked = set(_relative_links(ROOT / "benchmarks" / "README.md"))
    scripts = {path.name for path in (ROOT / "benchmarks").glob("*.py")}
    assert scripts - {"__init__.py", "report.py"} <= linked


def test_the_cost_in_the_json_page_has_the_keys_of_a_cost() -> None:
    from orchestrator.log.state import SweepState
    from orchestrator.money.budget import budget_use
    from orchestrator.money.cost import cost_of
    from orchestrator.view.cost_data import sweep_cost_json
    from orchestrator.view.cost_page import SweepCost

    state = SweepState()
    budget = budget_use(state, 1.0, 1.0, now=0.0)
    ours = sweep_cost_json(SweepCost("widths", "queued", cost_of(state, 0.0, {}), budget, {}))
    text = (ROOT / "docs" / "json.md").read_text()
    blocks = [json.loads(body) for language, body in CODE_BLOCK.findall(text) if language == "json"]
    shown = next(block for block in blocks if "price_sources" in block)
    assert set(shown) == set(ours)
    for name in ("spent", "machines", "budget"):
        assert set(shown[name]) == set(ours[name])


def test_every_key_of_a_sweep_s_row_is_in_the_json_page() -> None:
    from orchestrator.view.listing import SweepRow

    row = SweepRow("s", "sae_train", "queued", 0, 0, {}, "fvu", None, 0, False, 0, None, None, "")
    text = (ROOT / "docs" / "json.md").read_text()
    listing = text[text.index("## `saeq ls --json`") :].split("\n## ")[0]
    missing = [name for name in row.to_json() if f"`{name}`" not in listing]
    assert not missing


def test_the_rights_in_the_documents_are_those_that_a_refusal_names() -> None:
    """What S3 has to allow; the message to a user whose credentials may not has the short list."""
    from orchestrator.store import s3_errors

    text = (ROOT / "docs" / "running_the_queue.md").read_text()
    blocks = [json.loads(body) for language, body in CODE_BLOCK.findall(text) if language == "json"]
    policy = next(block for block in blocks if "Statement" in block)
    allowed = {action for statement in policy["Statement"] for action in statement["Action"]}
    named = set(re.findall(r"s3:[A-Z]\w+", Path(s3_errors.__file__).read_text()))
    assert named
    assert named <= allowed


def test_every_key_of_the_store_is_in_the_architecture() -> None:
    from orchestrator.store.layout import Layout

    text = (ROOT / "docs" / "architecture.md").read_text()
    layout = Layout()
    keys = [
        layout.queued("<sweep>"),
        layout.spec_text("<sweep>"),
        layout.segment("<sweep>", "<writer>"),
        layout.inputs("<sweep>"),
        layout.heartbeat("<sweep>", "<writer>"),
        layout.claim("<sweep>", "<t>"),
        layout.lease("<sweep>", "<t>", 1),
        layout.give_back("<sweep>", "<t>", 1),
        layout.checkpoints("<sweep>", "<t>"),
        layout.trial_output("<sweep>", "<t>", 1),
        layout.end("<sweep>", "<t>"),
        f"{layout.output('<sweep>')}<writer>.log",
        layout.artefact("<kind>", "<sweep>-<trial>"),
        layout.node_self("<node>"),
        layout.node_starter("<node>"),
        layout.quarantine("<host>"),
        layout.prices("<instance-type>", "<zone>"),
    ]
    missing = [key for key in keys if key not in text]
    assert not missing
