"""Imports point one way, heavy libraries stay where they belong, the command line stays light."""

from __future__ import annotations

import ast
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MAY_IMPORT: dict[str, frozenset[str]] = {
    "orchestrator": frozenset({"orchestrator", "jobs", "steering", "sae"}),
    "jobs": frozenset({"jobs", "steering", "sae"}),
    "steering": frozenset({"steering", "sae"}),
    "sae": frozenset({"sae"}),
}
"""Package -> packages of this project that it may import. Nothing imports tests or benchmarks."""

ONLY_IN: dict[str, frozenset[str]] = {
    "ray": frozenset({"orchestrator", "jobs"}),
    "rich": frozenset({"orchestrator"}),
    "typer": frozenset({"orchestrator"}),
}
"""Library -> packages that may import it, be it inside a function."""

OURS = frozenset(MAY_IMPORT) | {"tests", "benchmarks"}

HEAVY = ("torch", "ray", "transformers", "sae_lens", "datasets", "optuna", "matplotlib", "pandas")
"""Seconds each at import: none of them when the command line starts."""

LIGHT_MODULES = (
    "orchestrator.cli",
    "orchestrator.spec.sweep",
    "orchestrator.planning.plan",
    "jobs",
)

NO_TORCH_MODULES = (
    "orchestrator.view.dashboard",
    "orchestrator.cli.plan",
    "orchestrator.cli.look",
)

HELP_LIMIT_SECONDS = 1.0


def _modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def _top_names(tree: ast.AST, path: Path) -> Iterator[tuple[int, str]]:
    """(line, top-level package) of every import, wherever it stands in the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, path.relative_to(ROOT).parts[0]
            else:
                yield node.lineno, (node.module or "").partition(".")[0]


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_imports_point_one_way(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}; {package} may import only "
        f"{', '.join(sorted(MAY_IMPORT[package]))}"
        for path in _modules(package)
        for line, name in _top_names(ast.parse(path.read_text()), path)
        if name in OURS and name not in MAY_IMPORT[package]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_libraries_are_imported_only_where_they_belong(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}; only "
        f"{', '.join(sorted(ONLY_IN[name]))} may"
        for path in _modules(package)
        for line, name in _top_names(ast.parse(path.read_text()), path)
        if name in ONLY_IN and package not in ONLY_IN[name]
    ]
    assert not wrong, "\n".join(wrong)


def test_every_package_of_the_project_is_in_the_table() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages - {"tests", "benchmarks"} == set(MAY_IMPORT)


@pytest.mark.parametrize("module", [*LIGHT_MODULES, *NO_TORCH_MODULES])
def test_importing_the_light_modules_loads_nothing_heavy(module: str) -> None:
    program = (
        f"import {module}, json, sys\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == []


def test_help_answers_in_under_a_second() -> None:
    """Median of three; a busy machine gets three tries."""
    command = [sys.executable, "-c", "from orchestrator.cli import main; main()", "--help"]
    medians: list[float] = []
    for _ in range(3):
        seconds = [_seconds(command) for _ in range(3)]
        medians.append(statistics.median(seconds))
        if medians[-1] < HELP_LIMIT_SECONDS:
            return
    pytest.fail(f"saeq --help took {min(medians):.2f} s; look for a heavy import in orchestrator/")


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    return time.perf_counter() - start
