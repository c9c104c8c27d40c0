"""Where a local language model's files are, and what shows at once that they are no such thing."""

from __future__ import annotations

from pathlib import Path

from sae.stream_errors import OFFLINE_MODEL, BadModel

GGUF_MAGIC = b"GGUF"


def local_model(name: str) -> Path | None:
    """The folder or .gguf file that a model's name stands for; None for a name of the hub.

    Raises BadModel for a path with no model at it. Reads four bytes at most.
    """
    path = Path(name).expanduser()
    if path.is_file():
        _check_gguf(name, path)
        return path
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise BadModel(f"model folder {name!r} has no config.json; {_in_folder(path)}")
        return path
    if name.startswith((".", "/", "~")) or name.endswith(".gguf"):
        raise BadModel(f"model {name!r} is not there (looked from {Path.cwd()}); {OFFLINE_MODEL}")
    return None


def _check_gguf(name: str, path: Path) -> None:
    if path.suffix != ".gguf":
        raise BadModel(f"model {name!r} is a file but not .gguf; name a folder or a .gguf file")
    try:
        with open(path, "rb") as file:
            start = file.read(len(GGUF_MAGIC))
    except OSError as error:
        raise BadModel(f"model {name!r} cannot be read: {error.strerror}; {OFFLINE_MODEL}") from (
            error
        )
    if start != GGUF_MAGIC:
        raise BadModel(
            f"model {name!r} is no GGUF file: it starts with {start!r}, not {GGUF_MAGIC!r}; "
            f"{OFFLINE_MODEL}"
        )


def _in_folder(path: Path) -> str:
    gguf = sorted(path.glob("*.gguf"))
    return f"name the file: {str(gguf[0])!r}" if gguf else OFFLINE_MODEL
