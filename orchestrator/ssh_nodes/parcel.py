"""All that a host gets, as one tar stream over ssh's stdin."""

from __future__ import annotations

import io
import shlex
import tarfile
import time
from collections.abc import Mapping
from importlib.resources import files

from orchestrator.ssh_nodes.code_here import CodeHere

SCRIPTS = (
    "node_state.sh",
    "stop_node.sh",
    "launch.sh",
    "start.sh",
    "environment.sh",
    "keep.sh",
    "serve.sh",
)
SECRET = 0o600


def script(*names: str) -> str:
    """Scripts of the folder host/, one after the other."""
    folder = files("orchestrator.ssh_nodes") / "host"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


def packed(code: CodeHere, node: Mapping[str, str]) -> bytes:
    """The archive: `node/` (settings and secrets), `scripts/`, `code/`; nobody else may read it.

    Args:
        node: file name below `node/` -> text.
    """
    contents = {f"node/{name}": text.encode() for name, text in node.items()}
    contents |= {f"scripts/{name}": script(name).encode() for name in SCRIPTS}
    contents["scripts/requirements.txt"] = _lines(code.requirements)
    contents["scripts/constraints.txt"] = _lines(code.constraints)
    contents |= {f"code/{name}": content for name, content in code.files.items()}
    buffer, now = io.BytesIO(), int(time.time())
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=6) as archive:
        for name, content in sorted(contents.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(content), SECRET, now
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def unpack_and_launch(folder: str, *, restart: bool) -> str:
    """The command line on the host that takes the archive on stdin. Nothing secret is in it."""
    program = "\n".join(
        [
            "set -eu; umask 077",
            'case $1 in "~") r=$HOME;; "~/"*) r=$HOME/${1#??};; *) r=$1;; esac',
            'mkdir -p "$r"; new=$(mktemp -d "$r/incoming.XXXXXX")',
            'tar -xzf - -C "$new" || { rm -rf "$new"; exit 74; }',
            "s=$new/scripts; set +eu",
            '. "$s/node_state.sh"; . "$s/stop_node.sh"',
            'root=$r; set -- "$1" "$new" "$2"; . "$s/launch.sh"',
        ]
    )
    words = ["bash", "-c", program, "saeq", folder, "yes" if restart else "no"]
    return "exec " + " ".join(map(shlex.quote, words))


def _lines(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()
