"""Machines that are running, what they cost an hour, and whether anything is to be done there."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from orchestrator.doctor.base import Check, Finding, Level
from orchestrator.money.node_price import node_price
from orchestrator.nodes.records import NodeRecord, read_nodes
from orchestrator.providers.aws_machines import MachinesUnknown, aws_region, machines_in
from orchestrator.store import Store
from orchestrator.view.sweep_rows import sweep_rows

CLUSTER_FILE = "cluster.yaml"
HAS_WORK = ("queued", "running", "interrupted")
LABEL_OF = {
    "provider": "saeq-provider",
    "instance-type": "saeq-instance-type",
    "zone": "saeq-zone",
    "market": "saeq-market-type",
    "usd-per-hour": "saeq-usd-per-hour",
}
"""What a node calls it -> the Ray label from which prices are found."""


@dataclass(frozen=True)
class Machine:
    """One that is running, as far as anybody knows."""

    name: str
    kind: str
    """How it came: `serve`, `slurm`, `ssh`, `cluster`."""
    group: str
    """What is ended together with it: a cluster's name; else its own."""
    what: str
    """Type and market, in words."""
    usd_per_hour: float | None
    """Of the machine as a whole; None: nobody names a price."""


class RunningMachines(Check):
    """Records of the store, and EC2 where credentials are: a dead node may still be billed."""

    name = "running machines"
    order = 60

    def look(self, store: Store) -> Iterable[Finding]:
        """See the base class."""
        records = [record for record in read_nodes(store) if _is_there(record)]
        on_aws, not_asked = _aws_machines(store, records)
        machines = [*on_aws, *_others(store, records, {machine.name for machine in on_aws})]
        if not machines:
            yield Finding("ok", f"none that the store knows of{not_asked}")
            return
        waiting = [row for row in sweep_rows(store, time.time()) if row.state in HAS_WORK]
        if waiting:
            sweeps = "1 sweep" if len(waiting) == 1 else f"{len(waiting)} sweeps"
            yield Finding("ok", f"{_words(machines)}, for {sweeps}{not_asked}")
            return
        for (kind, group), own in _groups(machines):
            level: Level = "note" if kind in ("serve", "slurm") else "warning"
            what = f"{_words(own, group if kind == 'cluster' else '')}, and the queue is empty"
            yield Finding(level, what + not_asked, _end_of(kind, group))


def _is_there(record: NodeRecord) -> bool:
    """Heard of within a minute, or rented over ssh and never given back: silent ones bill, too."""
    starter = record.starter
    rented = starter is not None and starter.kind == "ssh"
    return record.is_fresh() or (rented and not any(m.stage == "ended" for m in record.marks))


def _aws_machines(store: Store, records: Sequence[NodeRecord]) -> tuple[list[Machine], str]:
    """What EC2 says, and why it was not asked."""
    zones = [_labels(record).get("saeq-zone", "") for record in records]
    matches = (re.match(r"[a-z]+(-[a-z]+)+-\d+", zone) for zone in zones)
    of_zones = {match[0] for match in matches if match is not None}
    regions = {aws_region(), _region_of(Path(CLUSTER_FILE)), *of_zones} - {""}
    if not regions:
        return [], ""
    try:
        found = machines_in(regions)
    except MachinesUnknown as error:
        return [], f" (EC2 was not asked: {error})"
    machines = [
        Machine(one.instance, "cluster", one.cluster, _type(one.labels), _price(store, one.labels))
        for one in found
    ]
    return machines, ""


def _others(store: Store, records: Sequence[NodeRecord], known: set[str]) -> Iterator[Machine]:
    """Machines of the store's records that EC2 has not told of already."""
    for record in records:
        labels, kind = _labels(record), record.newest.kind or "serve"
        if labels.get("instance") in known:
            continue
        group = {"ssh": record.id, "serve": record.host}.get(kind, "")
        what = _type(labels) or f"host {record.host}"
        yield Machine(record.id, kind, group, what, _price(store, labels))


def _labels(record: NodeRecord) -> dict[str, str]:
    """Under the names by which prices are found."""
    return {LABEL_OF.get(key, key): value for key, value in record.labels.items()}


def _type(labels: Mapping[str, str]) -> str:
    kind, market = (labels.get(f"saeq-{key}", "") for key in ("instance-type", "market-type"))
    return " ".join(word for word in (kind, market) if word) if kind else ""


def _price(store: Store, labels: Mapping[str, str]) -> float | None:
    """A typical price is one GPU's, and nobody says here how many there are."""
    price = node_price(0.0, labels, store=store)
    return None if price.is_estimate else price.usd_per_hour


def _groups(machines: Iterable[Machine]) -> Iterator[tuple[tuple[str, str], list[Machine]]]:
    """Those that end together, with their kind and name."""

    def together(machine: Machine) -> tuple[str, str]:
        return machine.kind, machine.group

    for key, members in groupby(sorted(machines, key=together), key=together):
        yield key, list(members)


def _words(machines: Sequence[Machine], cluster: str = "") -> str:
    """`3 machines of Ray cluster saeq are running (2 g5.2xlarge spot, ...): $2.41 an hour`."""
    counts = Counter(machine.what for machine in machines)
    types = ", ".join(f"{count} {what}" if count > 1 else what for what, count in counts.items())
    prices = [machine.usd_per_hour for machine in machines]
    known = [usd for usd in prices if usd is not None]
    cost = f"${sum(known):.2f} an hour" if known else "at a price that nobody named"
    if known and len(known) < len(prices):
        cost += f" and {len(prices) - len(known)} at a price that nobody named"
    subject = "1 machine" if len(machines) == 1 else f"{len(machines)} machines"
    whose = f" of Ray cluster {cluster}" if cluster else ""
    verb = "is" if len(machines) == 1 else "are"
    return f"{subject}{whose} {verb} running ({types}): {cost}"


def _end_of(kind: str, group: str) -> str:
    if kind == "cluster":
        named = f" --cluster-name {group}" if group not in ("", "saeq") else ""
        return f"ray down {CLUSTER_FILE}{named}"
    if kind == "ssh":
        return f"saeq node down {group}, then give the machine back to whom it is rented from"
    if kind == "slurm":
        return "saeq slurm down"
    return f"end `saeq serve` on {group}; a rented machine bills until it is given back"


def _region_of(path: Path) -> str:
    """The region of a cluster file in the folder that the command is run in."""
    if not path.is_file():
        return ""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        config = YAML(typ="safe").load(path.read_text())
        provider = config["provider"]
        return str(provider["region"]) if provider["type"] == "aws" else ""
    except (YAMLError, OSError, KeyError, TypeError):
        return ""
