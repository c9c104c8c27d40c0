"""The kernels are compiled once, and a machine without a compiler does without."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from sae.batched.kernels import CannotCompile, compiling, make_kernels
from sae.batched.workspace import Workspace

CPU = torch.device("cpu")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAEQ_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "tiny.cpp"
    path.write_text('extern "C" int answer() { return 42; }\n')
    try:
        compiling.compiled(path)
    except CannotCompile as error:
        pytest.skip(str(error))
    return path


def test_a_library_is_made_once_for_each_source(source: Path) -> None:
    library, identity = compiling.compiled(source)
    made_ns = library.stat().st_mtime_ns
    assert compiling.compiled(source) == (library, identity)
    assert library.stat().st_mtime_ns == made_ns
    source.write_text('extern "C" int answer() { return 43; }\n')
    other, other_identity = compiling.compiled(source)
    assert other != library
    assert other_identity != identity
    assert library.parent.parent == compiling.kernel_cache()


def test_what_the_compiler_says_is_told(source: Path) -> None:
    source.write_text("this is no C++\n")
    with pytest.raises(CannotCompile, match="ended with code .*error"):
        compiling.compiled(source)


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.delenv("SAEQ_KERNELS", raising=False)


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_torch_does_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert make_kernels(CPU, Workspace()).name == "torch"
    assert "CXX='no-such-compiler' is not on the PATH" in caplog.text


@pytest.mark.usefixtures("no_compiler")
def test_asking_for_cpp_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAEQ_KERNELS", "cpp")
    with pytest.raises(CannotCompile, match="cannot be compiled here"):
        make_kernels(CPU, Workspace())


def test_a_cache_that_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("SAEQ_CACHE", str(blocked))
    with pytest.raises(CannotCompile):
        compiling.compiled(source)
