"""Every key of the store, spelled once."""

from __future__ import annotations


class Layout:
    """Keys and prefixes (a prefix ends in '/')."""

    queue = "queue/"
    artefacts = "artefacts/"
    sweeps = "sweeps/"
    nodes = "nodes/"
    quarantines = "quarantine/"

    def queued(self, sweep: str) -> str:
        """The validated spec, its hash, its priority, and when it was submitted."""
        return f"queue/{sweep}.json"

    def sweep(self, sweep: str) -> str:
        return f"sweeps/{sweep}/"

    def spec_text(self, sweep: str) -> str:
        """The sweep file as the user wrote it."""
        return f"sweeps/{sweep}/sweep.yaml"

    def log(self, sweep: str) -> str:
        return f"sweeps/{sweep}/log/"

    def segment(self, sweep: str, writer: str) -> str:
        """One writer's events."""
        return f"sweeps/{sweep}/log/{writer}.jsonl"

    def heartbeat(self, sweep: str, writer: str) -> str:
        """A counter that its driver moves on while it lives."""
        return f"sweeps/{sweep}/drivers/{writer}.json"

    def trial(self, sweep: str, trial: str) -> str:
        return f"sweeps/{sweep}/trials/{trial}/"

    def claim(self, sweep: str, trial: str) -> str:
        """Exclusive: whoever creates it has suggested the trial."""
        return f"sweeps/{sweep}/trials/{trial}/config.json"

    def lease(self, sweep: str, trial: str, epoch: int) -> str:
        """Exclusive: whoever creates it holds that epoch."""
        return f"sweeps/{sweep}/trials/{trial}/leases/{epoch:06d}.json"

    def end(self, sweep: str, trial: str, life: int = 0) -> str:
        """Exclusive: a trial ends once in each of its lives; a retry begins the next one."""
        name = "end.json" if life == 0 else f"end-{life:04d}.json"
        return f"sweeps/{sweep}/trials/{trial}/{name}"

    def give_back(self, sweep: str, trial: str, epoch: int) -> str:
        """Once it is there, whoever holds that epoch checkpoints and lets the trial go."""
        return f"sweeps/{sweep}/trials/{trial}/give_back/{epoch:06d}.json"

    def trial_output(self, sweep: str, trial: str, epoch: int) -> str:
        """What was printed for a trial under one lease, wherever it ran."""
        return f"sweeps/{sweep}/trials/{trial}/output/{epoch:06d}.log"

    def inputs(self, sweep: str) -> str:
        """Exclusive: the artefacts of other sweeps that this one takes, fixed once."""
        return f"sweeps/{sweep}/inputs.json"

    def checkpoints(self, sweep: str, trial: str) -> str:
        return f"sweeps/{sweep}/trials/{trial}/checkpoints/"

    def checkpoint(self, sweep: str, trial: str, tokens: int, epoch: int) -> str:
        """Sorts by tokens, then by epoch."""
        return f"{self.checkpoints(sweep, trial)}{tokens:015d}-{epoch:06d}/"

    def output(self, sweep: str) -> str:
        """Logs of the driver and its Ray actors."""
        return f"sweeps/{sweep}/output/"

    def prices(self, instance_type: str, zone: str) -> str:
        """Spot price of an instance type over time, as its provider told it."""
        return f"prices/{instance_type}/{zone}.json"

    def node_self(self, node: str) -> str:
        """What a node says of itself; rewritten every few seconds while it is there."""
        return f"nodes/{node}/self.json"

    def node_starter(self, node: str) -> str:
        """What whoever started a node knows of its start."""
        return f"nodes/{node}/starter.json"

    def quarantine(self, host: str) -> str:
        """What is held against a host."""
        return f"quarantine/{host}.json"

    def artefact_kind(self, kind: str) -> str:
        return f"artefacts/{kind}/"

    def artefact(self, kind: str, artefact: str) -> str:
        return f"artefacts/{kind}/{artefact}/"
