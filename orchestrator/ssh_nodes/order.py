"""What a node shall be: asked for here, followed by the scripts there."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.money.node_price import PRICE_LABEL
from orchestrator.ssh_nodes.survey import Machine
from orchestrator.store.s3_place import S3Place

Under = Literal["auto", "systemd", "tmux", "nohup"]

DEFAULT_FOLDER = "~/.saeq"
CUDA_12_INDEX = "https://download.pytorch.org/whl/cu129"
"""Where builds for drivers older than `CUDA_13_DRIVER` are; it has torch 2.8 to 2.13."""
CUDA_13_DRIVER = 580
"""Major version of the oldest driver for CUDA 13, and below, for CUDA 12: NVIDIA's table of minimum
drivers in the CUDA release notes."""
CUDA_12_DRIVER = 525

_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_LABEL = re.compile(rf"({_WORD})=({_WORD})")


class BadOrder(ValueError):
    """A node cannot be asked for like this; the message says how."""


class NodeOrder(BaseModel):
    """A node, as it is asked for. Holds no secret."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: str
    machine: str
    """Its name in quarantine and tables: the address that ssh knows it by."""
    store: str
    """URL that opens the store from anywhere."""
    folder: str = DEFAULT_FOLDER
    """Where everything of ours is on the host."""
    environment: str | None = None
    """A virtual environment on the host to use as it is; None: one is made."""
    python: str | None = None
    """Version or path of the Python to make it with; None: what is there, 3.11 or newer."""
    torch_index: str | None = None
    """Package index for torch; None: by the host's driver."""
    setup: str = ""
    """Shell command, run before the environment is made."""
    serve_options: tuple[str, ...] = ()
    labels: Mapping[str, str] = Field(default_factory=dict)
    under: Under = "auto"
    """What keeps it running."""

    @property
    def labels_text(self) -> str:
        """`k=v,k=v`, as the node reads it."""
        return ",".join(f"{key}={value}" for key, value in sorted(self.labels.items()))

    def settings(self, *, code: str, version: str, torch: str, need: str) -> str:
        """The file on the host, for bash to source: a node with the same one is the same."""
        values = {
            "NODE": self.name,
            "MACHINE": re.sub(r"[^A-Za-z0-9._@-]", "-", self.machine),
            "STORE": self.store,
            "ENVIRONMENT": self.environment or "",
            "SETUP": self.setup,
            "LABELS": self.labels_text,
            "UNDER": self.under,
            "CODE": code,
            "VERSION": version,
            "TORCH": torch,
            "NEED": need,
        }
        lines = [f"{name}={shlex.quote(value)}" for name, value in values.items()]
        lines.append(f"SERVE_OPTIONS=({' '.join(map(shlex.quote, self.serve_options))})")
        return "\n".join(lines) + "\n"

    @property
    def endpoint(self) -> tuple[str, int] | None:
        """Host and port that the store is reached at; None for a folder."""
        if not self.store.startswith("s3://"):
            return None
        place = S3Place.parse(self.store, {})
        url = place.endpoint_url or f"https://s3.{place.region or 'us-east-1'}.amazonaws.com"
        parts = urlsplit(url)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


class Choices(BaseModel):
    """How the environment is made on this host: what was found there decides."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: Literal["cuda", "cpu"]
    torch_index: str = ""
    make_with: Literal["venv", "uv", "pip"] = "venv"
    base_python: str = ""
    python_version: str = ""

    @classmethod
    def of(cls, order: NodeOrder, machine: Machine, here: str) -> Choices:
        """Choose, for a host that has no faults.

        Args:
            here: minor version of this Python: the pins are made for it.
        """
        index = order.torch_index or ""
        driver = machine.driver_major
        if not index and driver is not None and driver < CUDA_13_DRIVER:
            index = CUDA_12_INDEX
        with_what, path, version = _python(order.python, machine, here)
        return cls(
            device="cuda" if machine.gpus else "cpu",
            torch_index=index,
            make_with=with_what,
            base_python=path,
            python_version=version,
        )

    @property
    def text(self) -> str:
        """The file on the host, for bash to source."""
        values = self.model_dump()
        return "".join(f"{name.upper()}={shlex.quote(values[name])}\n" for name in values)


def _python(
    wanted: str | None, machine: Machine, here: str
) -> tuple[Literal["venv", "uv", "pip"], str, str]:
    """The same minor version as here, if it is there or uv can bring it; else what there is."""
    fit = machine.fit_pythons(wanted)
    same = [python for python in fit if python.minor == (wanted or here)]
    version = wanted if wanted and wanted[0].isdigit() else here
    if same or (fit and wanted):
        return "venv", (same or fit)[0].path, (same or fit)[0].minor
    if machine.uv:
        return "uv", machine.uv, version
    if fit:
        return "venv", fit[0].path, fit[0].minor
    if machine.pip:
        return "pip", machine.pip, version
    return "venv", "python3", version  # as --setup leaves it


def need_key(order: NodeOrder, choices: Choices, constraints: Sequence[str]) -> str:
    """Name of the environment: the same needs find the same one again."""
    parts = [order.python or "", choices.device, choices.torch_index, *constraints]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def parsed_labels(given: Sequence[str], usd_per_hour: float | None) -> dict[str, str]:
    """`--label k=v` and the price as labels of the node. Raises BadOrder."""
    labels = {}
    for label in given:
        found = _LABEL.fullmatch(label)
        if found is None:
            raise BadOrder(
                f"--label {label!r}: write NAME=VALUE with letters, digits, '-', '_' and '.', 63 "
                "characters at most, as Ray's labels have it"
            )
        labels[found[1]] = found[2]
    if usd_per_hour is not None:
        labels[PRICE_LABEL] = f"{usd_per_hour:.6f}".rstrip("0").rstrip(".")
    return labels
