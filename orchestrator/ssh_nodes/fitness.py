"""What keeps a node from coming up on a host: all of it at once, each with a way out."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.ssh_nodes.order import CUDA_12_DRIVER, NodeOrder
from orchestrator.ssh_nodes.survey import Machine

INSTALL_MIB = 14 * 1024
"""torch with CUDA and what it needs, unpacked and in pip's cache for a while."""
INSTALL_CPU_MIB = 4 * 1024
RUN_MIB = 1024
OWN_ADDRESSES = ("127.0.0.1", "localhost", "::1")


class HostUnfit(ValueError):
    """A node cannot come up on that host."""

    def __init__(self, target: str, faults: list[str]) -> None:
        super().__init__(target, faults)
        self.target, self.faults = target, faults

    def __str__(self) -> str:
        if len(self.faults) == 1:
            return f"{self.target}: {self.faults[0]}"
        return "\n".join([f"{self.target}:", *(f"  - {fault}" for fault in self.faults)])


def host_faults(order: NodeOrder, machine: Machine, *, has_environment: bool) -> list[str]:
    """Every reason why not; empty when it fits.

    Args:
        has_environment: whether one is there that does, so that none has to be made.
    """
    needs_none = order.environment is not None or has_environment
    faults = [*_system(machine), *_disk(order, machine, needs_none), *_gpu(machine)]
    if not needs_none and not order.setup:  # which may bring it
        faults += _python(order, machine)
    return faults + list(_store(order, machine))


def _system(machine: Machine) -> Iterator[str]:
    system, _, _ = machine.system.partition(" ")
    if system != "Linux":
        yield f"it runs {system or 'an unknown system'}; a node has to be Linux"
    if machine.lacks:
        yield (
            f"it lacks {', '.join(machine.lacks)}; install util-linux, tar and gawk there, or take "
            "another image"
        )


def _disk(order: NodeOrder, machine: Machine, needs_none: bool) -> Iterator[str]:
    if machine.not_writable:
        yield (
            f"{machine.user or 'the user'} cannot write into {machine.not_writable}; name a folder "
            "that it can with --folder PATH"
        )
    install_mib = INSTALL_MIB if machine.gpus else INSTALL_CPU_MIB
    needed_mib = RUN_MIB if needs_none else install_mib
    if machine.free_mib is not None and machine.free_mib < needed_mib:
        yield (
            f"{machine.free_mib / 1024:.1f} GiB are free where {order.folder} is, and "
            f"{needed_mib / 1024:.0f} GiB are needed; free some, name a folder on a larger disk "
            "with --folder PATH, or rent it with more disk"
        )


def _gpu(machine: Machine) -> Iterator[str]:
    if machine.gpu_fault:
        yield (
            f"nvidia-smi fails: {machine.gpu_fault}; mend the driver (a reboot often does), or end "
            "the rental and take another machine"
        )
    driver = machine.driver_major
    if driver is not None and driver < CUDA_12_DRIVER:
        cuda = f" (CUDA {machine.cuda})" if machine.cuda else ""
        yield (
            f"driver {machine.gpus[0].driver}{cuda} is too old: torch's builds need "
            f"{CUDA_12_DRIVER} or newer; take a machine or an image with a newer driver"
        )


def _python(order: NodeOrder, machine: Machine) -> Iterator[str]:
    can_bring_one = bool(machine.uv or machine.pip) and not (order.python or "").startswith("/")
    if machine.fit_pythons(order.python) or can_bring_one:
        return
    found = ", ".join(
        f"{python.path} {python.version}{'' if python.can_venv else ' without venv'}"
        for python in machine.pythons
    )
    wanted = order.python or "3.11 or newer"
    yield (
        f"it has no Python {wanted} with venv (found: {found or 'none'}), and neither uv nor pip "
        "to get one; install it (--setup 'apt-get update && apt-get install -y python3-venv'), "
        "name one with --python PATH, or an environment that is there with --environment PATH"
    )


def _store(order: NodeOrder, machine: Machine) -> Iterator[str]:
    if machine.store_folder == "no":
        yield (
            f"the store {order.store} is a folder that the host does not have; name a store that "
            "both reach (--store s3://BUCKET/PREFIX), or mount the folder there under that path"
        )
    if machine.reach.startswith("no ") and order.endpoint is not None:
        host, port = order.endpoint
        if host in OWN_ADDRESSES:
            yield (
                f"the store's endpoint {host}:{port} means each machine itself; name the address "
                "that others reach it by in --store, or use a store on the internet"
            )
            return
        yield (
            f"the store's endpoint {host}:{port} cannot be reached from there "
            f"({machine.reach.removeprefix('no ')}); open it for the host, or use a store on the "
            "internet (docs/rented_machines.md)"
        )
