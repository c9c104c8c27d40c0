"""Ray: a cluster that was named, and what others left in /tmp."""

from __future__ import annotations

import json
import os
import platform
import pwd
import re
import socket
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from orchestrator.doctor.base import Check, Finding
from orchestrator.nodes.patient_child import answer_within
from orchestrator.store import Store

CONNECT_WITHIN_S = 4.0
ASK_WITHIN_S = 12.0
RAY_FOLDER = Path("/tmp/ray")
"""Where a Ray that is started by hand keeps its sessions; whoever comes first owns it."""

NO_TOKEN = "InvalidAuthToken"
TOKEN_WAY_OUT = (
    "export RAY_AUTH_MODE=token, and the head's token in RAY_AUTH_TOKEN or ~/.ray/auth_token"
)
ASK = """
import json, sys
from ray._common.usage import usage_lib
from ray._raylet import GcsClient
print(json.dumps(usage_lib.get_cluster_metadata(GcsClient(address=sys.argv[1]))))
"""


class RayCluster(Check):
    """Imports no Ray: a child process does, and only where a cluster was named."""

    name = "Ray"
    order = 55
    within_s = CONNECT_WITHIN_S + ASK_WITHIN_S + 5

    def look(self, store: Store) -> Iterable[Finding]:
        """See the base class."""
        del store
        address = os.environ.get("RAY_ADDRESS")
        if address:
            yield from _of_cluster(address)
        else:
            yield Finding("ok", "no cluster is named ($RAY_ADDRESS): commands start a local Ray")
        yield from _left_over_folder()


def _of_cluster(address: str) -> Iterable[Finding]:
    found = re.fullmatch(r"(?:ray://)?\[?([^/]+?)\]?:(\d+)", address)
    if found is None:
        if address not in ("auto", "local"):
            way_out = "write HOST:PORT, as `ray start --head` prints it"
            yield Finding("fault", f"RAY_ADDRESS={address} is no address", way_out)
        else:
            yield Finding("note", f"RAY_ADDRESS={address}: not looked at")
        return
    try:
        socket.create_connection((found[1], int(found[2])), CONNECT_WITHIN_S).close()
    except OSError as error:
        yield Finding(
            "fault",
            f"no Ray cluster answers at {address} ({error.strerror or error})",
            "start it, open the tunnel, or unset RAY_ADDRESS to use a local Ray",
        )
        return
    if address.startswith("ray://"):
        what = f"{address} answers; Ray's client port does not tell its versions"
        yield Finding("warning", what, "name the head's own port (6379): drivers join the cluster")
        return
    yield _same_versions(address)


def _same_versions(address: str) -> Finding:
    """Ray refuses drivers of another version, of Ray or of Python, in the middle of a start."""
    answer = answer_within([sys.executable, "-c", ASK, address], ASK_WITHIN_S)
    try:
        there: Mapping[str, Any] = json.loads(answer.output)
    except ValueError:
        if NO_TOKEN in answer.errors:
            what = f"the cluster at {address} asks for a token, and takes none that is here"
            return Finding("fault", what, TOKEN_WAY_OUT)
        what = f"something answers at {address}, but not as Ray does"
        return Finding("fault", what, "name the port of the head (6379 unless it was told another)")
    ours = {"ray_version": _own_ray(), "python_version": platform.python_version()}
    theirs = {name: str(there.get(name)) for name in ours}
    if theirs["ray_version"] != ours["ray_version"] or _minor(theirs) != _minor(ours):
        what = f"the cluster at {address} runs {_words(theirs)}, this machine {_words(ours)}"
        return Finding("fault", what, "install the same versions here (Python's minor one)")
    return Finding("ok", f"the cluster at {address} runs {_words(theirs)}, as this machine")


def _own_ray() -> str:
    try:
        return version("ray")
    except PackageNotFoundError:
        return "none"


def _minor(versions: Mapping[str, str]) -> list[str]:
    return versions["python_version"].split(".")[:2]


def _words(versions: Mapping[str, str]) -> str:
    return f"Ray {versions['ray_version']} on Python {versions['python_version']}"


def _left_over_folder() -> Iterable[Finding]:
    """Our own Rays have folders of their own; one started by hand stumbles over it."""
    try:
        owner = RAY_FOLDER.stat().st_uid
    except OSError:
        return
    if owner != os.getuid() and not os.access(RAY_FOLDER, os.W_OK | os.X_OK):
        yield Finding(
            "note",
            f"{RAY_FOLDER} belongs to {_user(owner)}: `ray start` by hand fails here",
            "ray start --temp-dir=/tmp/ray-$USER; saeq's own Ray is not concerned",
        )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
