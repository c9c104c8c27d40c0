"""`saeq node`: rented machines, brought up over ssh; and the watch on a cluster's node."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import node_options as given
from orchestrator.cli import with_examples
from orchestrator.cli.errors import DONE, INTERRUPTED, SWEEP_FAILED, RequestError
from orchestrator.cli.options import JsonOption, StoreOption

if TYPE_CHECKING:
    from orchestrator.nodes.stages import Stage
    from orchestrator.ssh_nodes.order import NodeOrder, Under
    from orchestrator.ssh_nodes.target import SshTarget
    from orchestrator.ssh_nodes.up import NodeStart
    from orchestrator.store import Store

HELP = """Rented machines: brought up over ssh, looked at, taken down.

\b
    saeq node up root@1.2.3.4 --port 40122 --store s3://bucket/saeq --env-file store.env
    saeq node ls
    saeq node down root@1.2.3.4 --port 40122

A node needs no inbound connection but ssh, and none at all once it is up: docs/rented_machines.md.
"""

UNTIL = ("script", "environment", "probe", "ray", "lease", "report")
UNDER = ("auto", "systemd", "tmux", "nohup")

node = typer.Typer(help=HELP, rich_markup_mode=None, no_args_is_help=True, add_completion=False)


def up(
    target: given.TargetArgument,
    store: StoreOption = None,
    port: given.PortOption = None,
    identity: given.IdentityOption = None,
    ssh_option: given.SshOption = None,
    name: given.NameOption = None,
    env_file: given.EnvFileOption = None,
    env: given.EnvOption = None,
    usd_per_hour: given.PriceOption = None,
    label: given.LabelOption = None,
    serve_options: given.ServeOptionsOption = "",
    notices: given.NoticesOption = None,
    setup: given.SetupOption = "",
    python: given.PythonOption = None,
    environment: given.EnvironmentOption = None,
    torch_index: given.TorchIndexOption = None,
    folder: given.FolderOption = None,
    under: given.UnderOption = "auto",
    until: given.UntilOption = "lease",
    restart: given.RestartOption = False,
    dry_run: given.DryRunOption = False,
) -> int:
    """Bring a machine up over ssh: check it, install saeq as it is here, start `saeq serve` there.

    What was started goes on without this command: cut off or interrupted, the same command follows
    it again, and on a node that is up it takes seconds. Nothing listens on the machine.

        saeq node up ubuntu@1.2.3.4 --store s3://bucket/saeq --env-file store.env
        saeq node up root@ssh5.vast.ai --port 12345 --usd-per-hour 1.49 --label saeq-provider=vast
        saeq node up box --environment /opt/venv --dry-run
    """
    from orchestrator.ssh_nodes.order import DEFAULT_FOLDER, NodeOrder, parsed_labels
    from orchestrator.ssh_nodes.target import SshTarget, checked_node_name
    from orchestrator.store import Store

    reached = SshTarget.parse(target, port, identity, tuple(ssh_option or ()))
    opened = Store.open(store)
    order = NodeOrder(
        name=checked_node_name(name) if name is not None else reached.node,
        machine=reached.machine,
        store=opened.url,
        folder=folder or DEFAULT_FOLDER,
        environment=environment,
        python=python,
        torch_index=torch_index,
        setup=setup,
        serve_options=_words(serve_options, notices),
        labels=parsed_labels(label or [], usd_per_hour),
        under=_under(under),
    )
    start = _start(reached, order, opened, env_file, env or [])
    if dry_run:
        for line in start.dry_run():
            typer.echo(line)
        return DONE
    return _bring_up(start, order.name, restart=restart, until=_until(until))


def ls(
    store: StoreOption = None,
    with_down: Annotated[
        bool, typer.Option("--all", help="Also those that were taken down.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """The nodes that `saeq node up` brought up, by whomever, and what they do now.

    `saeq nodes` shows every machine that works for the store, with the stages of its start.

        saeq node ls
        saeq node ls --all --json
    """
    from rich.console import Console

    from orchestrator.ssh_nodes.inventory import node_table, ssh_nodes
    from orchestrator.store import Store

    nodes, now = ssh_nodes(Store.open(store), with_down=with_down), time.time()
    if as_json:
        sys.stdout.write(json.dumps([one.to_json(now) for one in nodes], indent=1) + "\n")
        return
    console = Console(highlight=False)
    for line in node_table(nodes, now, console.width if console.is_terminal else None):
        console.print(line, soft_wrap=True)


def down(
    node_name: given.NodeArgument,
    store: StoreOption = None,
    port: given.PortOption = None,
    identity: given.IdentityOption = None,
    ssh_option: given.SshOption = None,
    folder: given.FolderOption = None,
    now: Annotated[bool, typer.Option("--now", help="Kill it instead of draining it.")] = False,
    purge: Annotated[
        bool, typer.Option("--purge", help="Also remove the environment and all else of ours.")
    ] = False,
    gone: Annotated[
        bool, typer.Option("--gone", help="The machine is no more: only take it off the list.")
    ] = False,
) -> int:
    """Take a node down: its trials checkpoint and go back, then nothing of it is left running.

    Works from anywhere that reaches the store and the host, whoever brought the node up. The rental
    itself goes on, and is paid, until you end it at its provider.

        saeq node down box-1
        saeq node down root@1.2.3.4 --port 40122 --purge
        saeq node down box-1 --gone
    """
    from orchestrator.ssh_nodes.down import DownOptions, take_down

    opened, name, target = _resolved(store, node_name, port, identity, ssh_option)
    take_down(opened, name, target, folder, DownOptions(now, purge, gone), typer.echo)
    if not gone:
        typer.echo(f"{target.host} itself still runs and costs until you end it at its provider")
    return DONE


def logs(
    node_name: given.NodeArgument,
    store: StoreOption = None,
    port: given.PortOption = None,
    identity: given.IdentityOption = None,
    ssh_option: given.SshOption = None,
    folder: given.FolderOption = None,
    of_start: Annotated[
        bool, typer.Option("--start", help="What its start printed: installation, --setup.")
    ] = False,
    num_lines: Annotated[
        int, typer.Option("--lines", metavar="N", min=1, help="So many of the last lines.")
    ] = 100,
) -> None:
    """What `saeq serve` printed on a node, or its start.

    saeq node logs box-1
    saeq node logs box-1 --start
    """
    from orchestrator.ssh_nodes.connection import SshConnection
    from orchestrator.ssh_nodes.inventory import folder_of
    from orchestrator.ssh_nodes.start_watch import tail

    opened, name, target = _resolved(store, node_name, port, identity, ssh_option)
    where = folder or folder_of(opened, name)
    with SshConnection(target) as connection:
        typer.echo(tail(connection, where, "start" if of_start else "serve", num_lines))


def _start(
    target: SshTarget, order: NodeOrder, store: Store, env_file: str | None, env: list[str]
) -> NodeStart:
    from orchestrator.ssh_nodes.code_here import CodeHere
    from orchestrator.ssh_nodes.env_file import gathered
    from orchestrator.ssh_nodes.up import NodeStart, Variables

    variables = Variables(gathered(env_file, env))
    return NodeStart(target, order, variables, CodeHere.find(), store, typer.echo)


def _bring_up(start: NodeStart, name: str, *, restart: bool, until: Stage) -> int:
    from orchestrator.ssh_nodes.start_watch import StartFailed

    try:
        how = start.run(restart=restart, until=until)
    except StartFailed as error:
        typer.echo(f"saeq: {error}", err=True)
        return SWEEP_FAILED
    except KeyboardInterrupt:
        typer.echo(
            f"interrupted; what was begun on the machine goes on there: the same command follows "
            f"it, `saeq node down {name}` ends it",
            err=True,
        )
        return INTERRUPTED
    typer.echo(f"{name}: {how}; `saeq node ls` shows it, `saeq node down {name}` takes it down")
    return DONE


def _resolved(
    store: str | None,
    node_name: str,
    port: int | None,
    identity: str | None,
    ssh_option: list[str] | None,
) -> tuple[Store, str, SshTarget]:
    from orchestrator.ssh_nodes.inventory import resolve
    from orchestrator.store import Store

    opened = Store.open(store)
    name, target = resolve(opened, node_name, port, identity, tuple(ssh_option or ()))
    return opened, name, target


def _words(serve_options: str, notices: str | None) -> tuple[str, ...]:
    try:
        words = shlex.split(serve_options)
    except ValueError as error:
        raise RequestError(f"--serve-options {serve_options!r}: {error}") from error
    for word in words:
        if word.partition("=")[0] in ("--store", "--ray-address"):
            raise RequestError(f"--serve-options cannot have {word}: a node has a Ray of its own")
    return tuple(words) + (("--notices", notices) if notices is not None else ())


def _under(text: str) -> Under:
    for known in UNDER:
        if text == known:
            return known  # type: ignore[return-value]
    raise RequestError(f"--under {text!r} is unknown; known: {', '.join(UNDER)}")


def _until(text: str) -> Stage:
    from orchestrator.nodes.stages import STAGES

    for stage in STAGES:
        if text == stage and text in UNTIL:
            return stage
    raise RequestError(f"--until {text!r} is no stage; stages: {', '.join(UNTIL)}")


def _add(name: str, function: Callable[..., Any]) -> None:
    node.command(name, help=with_examples(function))(function)


for _name, _function in (("up", up), ("ls", ls), ("down", down), ("logs", logs)):
    _add(_name, _function)
if find_spec("orchestrator.cli.node_watch") is not None:
    _add("watch", import_module("orchestrator.cli.node_watch").watch)
