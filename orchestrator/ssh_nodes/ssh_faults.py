"""What ssh says when it does not get through, in words that say what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.ssh_nodes.target import SshTarget


class SshFailed(ValueError):
    """The machine cannot be reached, or does not let us in."""

    def __init__(self, target: str, why: str, way_out: str) -> None:
        super().__init__(target, why, way_out)
        self.target, self.why, self.way_out = target, why, way_out

    def __str__(self) -> str:
        return f"{self.target}: {self.why}; {self.way_out}"


class ConnectionLost(SshFailed):
    """ssh got through and then did not: what runs there goes on."""


@dataclass(frozen=True)
class _Sign:
    """A pattern in what ssh says, and what it means."""

    pattern: str
    why: str
    way_out: str


_SIGNS: Sequence[_Sign] = (
    _Sign(
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|Host key verification failed",
        "its host key is another one than last time",
        "a rented machine that got an old one's address looks like this, and so does an attack: if "
        "the machine is new, forget the old key with `{forget}`",
    ),
    _Sign(
        r"Permission denied \(|Too many authentication failures|no mutual signature",
        "it does not accept the key ({said})",
        "name the key that the provider has with --identity FILE, or the user that it logs in "
        "(root@, ubuntu@); a key with a passphrase has to be in ssh-agent (`ssh-add FILE`)",
    ),
    _Sign(
        r"UNPROTECTED PRIVATE KEY FILE|bad permissions|invalid format|error in libcrypto",
        "the key file cannot be used ({said})",
        "`chmod 600` it, and name the private key, not the .pub",
    ),
    _Sign(
        r"Could not resolve hostname",
        "there is no host of that name",
        "look at the provider's page for its address, or at your ~/.ssh/config",
    ),
    _Sign(
        r"Connection refused",
        "nothing listens on that port",
        "the machine may still be starting (try again in a minute), or its ssh has another port: "
        "--port N",
    ),
    _Sign(
        r"timed out|No route to host|Network is unreachable|Host is down",
        "it does not answer ({said})",
        "it may still be starting, be gone, or be behind NAT or a firewall: then run `saeq serve` "
        "there by hand (docs/rented_machines.md)",
    ),
    _Sign(
        r"Connection (?:closed|reset)|kex_exchange_identification|Broken pipe",
        "it closed the connection ({said})",
        "its ssh may still be starting; try again in a minute",
    ),
    _Sign(
        r"Bad configuration option|[Bb]ad (?:number|value)|unsupported option|garbage",
        "ssh does not take an option ({said})",
        "correct --ssh-option or ~/.ssh/config; `man ssh_config` has the names",
    ),
)


def explained(target: SshTarget, stderr: str) -> SshFailed:
    """The error for what ssh said when it ended with 255."""
    said = _said(stderr)
    for sign in _SIGNS:
        if re.search(sign.pattern, stderr):
            way_out = sign.way_out.replace("{forget}", _forget(target))
            return SshFailed(str(target), sign.why.replace("{said}", said), way_out)
    tried = " ".join(["ssh", *target.arguments, target.destination, "true"])
    return SshFailed(str(target), f"ssh does not get there ({said})", f"try `{tried}` by hand")


def _said(stderr: str) -> str:
    lines = [line.strip().rstrip(".") for line in stderr.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("@", "Warning: Permanently added"))]
    return lines[-1] if lines else "it says nothing"


def _forget(target: SshTarget) -> str:
    name = target.host if target.port in (None, 22) else f"[{target.host}]:{target.port}"
    files = [o.partition("=")[2] for o in target.options if o.startswith("UserKnownHostsFile=")]
    where = f" -f {files[0]}" if files else ""
    return f"ssh-keygen{where} -R '{name}'"
