"""Variables for a node, its secrets among them: from a file or from here, to a file there.

They travel over ssh's stdin into a file that only its owner reads; never on a command line, into a
record, or into a log.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

AWS_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
NOT_OURS = ("SAEQ_NODE", "SAEQ_NODE_KIND", "SAEQ_NODE_LABELS", "SAEQ_NODE_HOST", "SAEQ_STORE")
"""Variables that the node's start sets itself."""


class BadVariables(ValueError):
    """The variables for a node cannot be used; the message names the line or the name."""


def gathered(
    env_file: str | None, names: Iterable[str], environment: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The variables of a file and, over them, those that are named, as they are here.

    Args:
        env_file: lines `NAME=VALUE`, as docker and systemd have them.
        names: of variables of this environment.

    Raises BadVariables; no message has a value in it.
    """
    found = parsed(_read(env_file), env_file) if env_file is not None else {}
    for name in names:
        if "=" in name:
            raise BadVariables(
                f"--env {name.partition('=')[0]}=...: give the name alone, its value is taken from "
                "your environment; on a command line everybody on this machine can read it"
            )
        if not environment.get(name):
            raise BadVariables(
                f"--env {name}: it is not set here; `export {name}=...`, or use --env-file FILE"
            )
        found[name] = environment[name]
    for name, value in found.items():
        _check(name, value)
    return found


def _read(env_file: str) -> str:
    try:
        return Path(env_file).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BadVariables(f"--env-file {env_file}: {why}") from error


def parsed(text: str, source: str) -> dict[str, str]:
    """Lines `NAME=VALUE`: `export` in front, quotes around the value and `#` lines are understood.

    Raises BadVariables.
    """
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.removeprefix("export ").strip().partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise BadVariables(f"{source}, line {number}: it is not NAME=VALUE")
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        found[name] = value
    return found


def _check(name: str, value: str) -> None:
    if not _NAME.fullmatch(name):
        raise BadVariables(f"--env {name!r} is no variable's name")
    if name in NOT_OURS:
        raise BadVariables(
            f"{name} cannot be given: the node's start sets it; --store, --name, --label say it"
        )
    if "\n" in value or "\0" in value:
        raise BadVariables(f"{name}: its value has more than one line; give it in one")


def rendered(variables: Mapping[str, str]) -> str:
    """The file on the host, for bash to source."""
    lines = (f"{name}={shlex.quote(variables[name])}\n" for name in sorted(variables))
    return "".join(lines)


def has_store_keys(variables: Mapping[str, str]) -> bool:
    """Whether S3 credentials are among them."""
    return all(variables.get(name) for name in AWS_KEYS)
