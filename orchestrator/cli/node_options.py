"""Options of `saeq node up`, `down` and `logs`."""

from __future__ import annotations

from typing import Annotated

import typer

TargetArgument = Annotated[
    str,
    typer.Argument(metavar="USER@HOST", help="As for ssh; also a name of ~/.ssh/config."),
]
NodeArgument = Annotated[
    str,
    typer.Argument(metavar="NODE", help="Its name, as `saeq node ls` shows it, or user@host."),
]
PortOption = Annotated[
    int | None,
    typer.Option("--port", metavar="N", min=1, max=65535, help="ssh's port.", show_default=False),
]
IdentityOption = Annotated[
    str | None,
    typer.Option("--identity", metavar="FILE", help="Private key for ssh.", show_default=False),
]
SshOption = Annotated[
    list[str] | None,
    typer.Option(
        "--ssh-option",
        metavar="NAME=VALUE",
        help="Given to ssh with -o, such as ProxyJump=gateway. Several times if need be.",
        show_default=False,
    ),
]
FolderOption = Annotated[
    str | None,
    typer.Option(
        "--folder",
        metavar="PATH",
        help="Where everything goes on the host; a large disk that stays. [~/.saeq]",
        show_default=False,
    ),
]
NameOption = Annotated[
    str | None,
    typer.Option(
        "--name", metavar="NAME", help="The node's name; else from its address.", show_default=False
    ),
]
PythonOption = Annotated[
    str | None,
    typer.Option(
        "--python",
        metavar="VERSION|PATH",
        help="Python there for its environment; else the version that runs here, brought by uv if "
        "need be, else what there is from 3.11 on.",
        show_default=False,
    ),
]
EnvironmentOption = Annotated[
    str | None,
    typer.Option(
        "--environment",
        metavar="PATH",
        help="Use this virtual environment of the host, as it is: for images that have everything.",
        show_default=False,
    ),
]
TorchIndexOption = Annotated[
    str | None,
    typer.Option(
        "--torch-index",
        metavar="URL",
        help="Package index for torch; else by the host's driver.",
        show_default=False,
    ),
]
EnvFileOption = Annotated[
    str | None,
    typer.Option(
        "--env-file",
        metavar="FILE",
        help="Variables for the node, NAME=VALUE a line: the store's credentials.",
        show_default=False,
    ),
]
EnvOption = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        metavar="NAME",
        help="A variable for the node, with the value that it has here. Several times if need be.",
        show_default=False,
    ),
]
SetupOption = Annotated[
    str,
    typer.Option(
        "--setup", metavar="CMD", help="Shell command, run there first.", show_default=False
    ),
]
PriceOption = Annotated[
    float | None,
    typer.Option(
        "--usd-per-hour",
        metavar="USD",
        min=0,
        help="What the machine as a whole costs; goes into `saeq cost`.",
        show_default=False,
    ),
]
LabelOption = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="NAME=VALUE",
        help="Known of the machine: saeq-provider=vast. Several times if need be.",
        show_default=False,
    ),
]
ServeOptionsOption = Annotated[
    str,
    typer.Option(
        "--serve-options",
        metavar="OPTIONS",
        help="Given to `saeq serve` there: '--sweeps 2 --for 8h'.",
        show_default=False,
    ),
]
NoticesOption = Annotated[
    str | None,
    typer.Option(
        "--notices",
        metavar="SOURCE",
        help="Who announces that the machine goes: command:CMD, aws, gcp; see `saeq serve --help`.",
        show_default=False,
    ),
]
UnderOption = Annotated[
    str,
    typer.Option(
        "--under",
        metavar="WHAT",
        help="What keeps it running: systemd, tmux, nohup, or auto: the first that works.",
    ),
]
UntilOption = Annotated[
    str,
    typer.Option(
        "--until",
        metavar="STAGE",
        help="Look on until then: script, environment, probe, ray, lease, report. Sooner where "
        "the queue has nothing to do.",
    ),
]
RestartOption = Annotated[
    bool,
    typer.Option(
        "--restart", help="Where it is up with other settings: drain it and start it anew."
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Look at the host and say what would be done.")
]
