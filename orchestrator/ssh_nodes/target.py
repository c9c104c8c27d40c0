"""Which machine, and how ssh gets there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SSH_PORT = 22
_TARGET = re.compile(
    r"(?:ssh://)?(?:(?P<user>[^@\s:/]+)@)?(?P<host>\[[^\]]+\]|[^@\s:/]+)(?::(?P<port>\d+))?/?"
)
_NODE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_OPTION = re.compile(r"[A-Za-z]+[=\s]\S.*")


class BadTarget(ValueError):
    """What was given names no machine, or no way to it; the message says what would."""


@dataclass(frozen=True)
class SshTarget:
    """A machine as ssh knows it."""

    host: str
    """A name of ~/.ssh/config, a host name, or an address."""
    user: str | None = None
    """None: as ssh decides."""
    port: int | None = None
    identity: str | None = None
    """Private key file; None: as ssh decides."""
    options: tuple[str, ...] = ()
    """`Name=Value` of ssh_config, each given with -o."""

    @classmethod
    def parse(
        cls,
        text: str,
        port: int | None = None,
        identity: str | None = None,
        options: tuple[str, ...] = (),
    ) -> SshTarget:
        """Read `user@host`, `host`, `user@host:port` or `ssh://user@host:port`.

        Raises BadTarget.
        """
        found = _TARGET.fullmatch(text.strip())
        if found is None or found["host"].startswith("-") or (found["user"] or "").startswith("-"):
            raise BadTarget(f"{text!r} names no host; write user@host, and --port N for its port")
        in_text = int(found["port"]) if found["port"] else None
        if port is not None and in_text is not None and port != in_text:
            raise BadTarget(f"{text!r} and --port {port} name two ports; leave one out")
        return cls(
            found["host"].strip("[]"),
            found["user"],
            port if port is not None else in_text,
            _key_file(identity),
            tuple(_option(option) for option in options),
        )

    @classmethod
    def of_labels(
        cls, labels: Mapping[str, str], identity: str | None, options: tuple[str, ...]
    ) -> SshTarget:
        """As a node's record has it (`labels`); keys are each user's own."""
        port = labels.get("ssh-port")
        return cls.parse(
            labels.get("ssh-target", ""), int(port) if port else None, identity, options
        )

    @property
    def labels(self) -> dict[str, str]:
        """What somebody else needs to reach it."""
        port = {"ssh-port": str(self.port)} if self.port is not None else {}
        return {"ssh-target": self.login, **port}

    @property
    def login(self) -> str:
        """`user@host`, or `host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.user}@{host}" if self.user else host

    @property
    def destination(self) -> str:
        """As ssh takes it: an IPv6 address without brackets."""
        return f"{self.user}@{self.host}" if self.user else self.host

    @property
    def machine(self) -> str:
        """`host`, with the port if it is not 22: tells machines behind one address apart."""
        return self.host if self.port in (None, SSH_PORT) else f"{self.host}-{self.port}"

    @property
    def node(self) -> str:
        """The node's name where none is given; the same for the same machine."""
        name = re.sub(r"[^a-z0-9]+", "-", self.machine.lower()).strip("-")
        return name[:63].rstrip("-") or "node"

    @property
    def arguments(self) -> list[str]:
        """Options for the command `ssh`, without the destination."""
        given = ["-p", str(self.port)] if self.port is not None else []
        if self.identity is not None:
            given += ["-i", self.identity, "-o", "IdentitiesOnly=yes"]
        return given + [word for option in self.options for word in ("-o", option)]

    def __str__(self) -> str:
        return self.login if self.port is None else f"{self.login} (port {self.port})"


def checked_node_name(name: str) -> str:
    """A name that a key of the store and a unit of systemd take. Raises BadTarget."""
    if not _NODE.fullmatch(name):
        raise BadTarget(
            f"--name {name!r} is no node name; write lower-case letters, digits and dashes, "
            "63 at most, such as box-1"
        )
    return name


def _key_file(identity: str | None) -> str | None:
    if identity is None:
        return None
    path = Path(identity).expanduser()
    if not path.is_file():
        raise BadTarget(f"--identity {identity}: there is no such file; name the private key")
    return str(path.absolute())


def _option(option: str) -> str:
    if not _OPTION.fullmatch(option):
        raise BadTarget(f"--ssh-option {option!r}: write Name=Value, as in `man ssh_config`")
    return option
