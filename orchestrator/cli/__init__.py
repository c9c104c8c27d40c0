"""The command `saeq`: a table of commands, each imported only when it is called."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from inspect import getdoc
from typing import Any

import typer
from typer.core import TyperGroup

from orchestrator.cli.errors import exit_code_of

__all__ = ["COMMANDS", "CommandEntry", "build_app", "main", "with_examples"]


@dataclass(frozen=True)
class CommandEntry:
    """One command: where it is and what `saeq --help` says of it."""

    module: str
    """Module of this folder; the command is its function of the command's name."""
    summary: str
    panel: str


START, LOOK, STEER, MACHINES = "Run", "Look", "Steer", "Machines"

COMMANDS: dict[str, CommandEntry] = {
    "plan": CommandEntry("plan", "Say what a sweep would run and cost; writes nothing.", START),
    "run": CommandEntry("run", "Submit a sweep, or go on with it, and work it off here.", START),
    "submit": CommandEntry("run", "Put a sweep into the store's queue; prints its id.", START),
    "serve": CommandEntry("serve", "Work the queue off; safe to kill, safe to run many of.", START),
    "watch": CommandEntry("look", "The live dashboard, from anywhere with the store.", LOOK),
    "ls": CommandEntry("look", "All sweeps: how far, how good, why they wait.", LOOK),
    "show": CommandEntry("look", "One sweep, or one trial with all that happened to it.", LOOK),
    "results": CommandEntry("look", "Table, frontier and plot of a sweep.", LOOK),
    "compare": CommandEntry("compare", "Which value of a parameter is better, or a tie.", LOOK),
    "evaluate": CommandEntry("evaluate", "A finished embedding put to other tests.", LOOK),
    "cost": CommandEntry("cost", "What sweeps cost, lost and saved.", LOOK),
    "steer": CommandEntry("steering", "A steered model's answer beside the unsteered one.", LOOK),
    "artefacts": CommandEntry("look", "What the store holds: SAEs, models, vectors.", LOOK),
    "logs": CommandEntry("logs", "What was printed for a trial, or by the drivers.", LOOK),
    "cancel": CommandEntry("steer", "End a sweep or some of its trials.", STEER),
    "pause": CommandEntry("steer", "Checkpoint what runs and stand still until resumed.", STEER),
    "resume": CommandEntry("steer", "Go on with what was paused.", STEER),
    "retry": CommandEntry("steer", "Give failed trials another chance.", STEER),
    "priority": CommandEntry("steer", "Whose trials come first.", STEER),
    "extend": CommandEntry("steer", "More trials, longer ones, or more money.", STEER),
    "nodes": CommandEntry("nodes", "Every machine: its start, its state, why not.", MACHINES),
    "node": CommandEntry("node", "Rented machines: up, down, notices of their end.", MACHINES),
    "gc": CommandEntry("gc", "Remove what nothing in the store refers to.", MACHINES),
    "slurm": CommandEntry("slurm", "Workers as SLURM jobs.", MACHINES),
    "doctor": CommandEntry("doctor", "Check machine, cluster and store.", MACHINES),
}

HELP = """Sweeps of sparse autoencoders on GPUs that come and go.

Start with these three:

    saeq plan examples/demo.yaml    what would run, and what it costs
    saeq run examples/demo.yaml     work it off here, with a live view
    saeq results demo               table, frontier and plot afterwards

The store is --store, else $SAEQ_STORE, else ./saeq-store.

Exit codes: 0 done, 1 the sweep failed, 2 the request was wrong, 130 interrupted (resumable).
"""


class LazyGroup(TyperGroup):
    """Lists commands from the table and imports one only when it is called or asked for help."""

    def list_commands(self, ctx: Any) -> list[str]:
        del ctx
        return [name for name, entry in COMMANDS.items() if _exists(entry)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        del ctx
        entry = COMMANDS.get(cmd_name)
        return load_command(cmd_name, entry) if entry is not None and _exists(entry) else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """One section a panel, from the table alone: no command is imported for `--help`."""
        names = self.list_commands(ctx)
        width = max((len(name) for name in names), default=0)
        for panel in dict.fromkeys(COMMANDS[name].panel for name in names):
            rows = [
                (name.ljust(width), COMMANDS[name].summary)
                for name in names
                if COMMANDS[name].panel == panel
            ]
            with formatter.section(panel):
                formatter.write_dl(rows)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-") and not ctx.resilient_parsing:
            ctx.fail(_unknown_command(args[0], known))
        return super().resolve_command(ctx, args)


def load_command(name: str, entry: CommandEntry) -> Any:
    """Import a command's module and make the command from the function of its name."""
    module = import_module(f"{__name__}.{entry.module}")
    function = getattr(module, name.replace("-", "_"))
    if isinstance(function, typer.Typer):
        return typer.main.get_command(function)
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name, help=with_examples(function), short_help=entry.summary)(function)
    return typer.main.get_command(single)


def with_examples(function: Callable[..., Any]) -> str:
    """The docstring, with its indented paragraphs (examples) kept from being re-wrapped."""
    paragraphs = (getdoc(function) or "").split("\n\n")
    return "\n\n".join(f"\b\n{p}" if p.startswith("    ") else p for p in paragraphs)


def _exists(entry: CommandEntry) -> bool:
    return find_spec(f"{__name__}.{entry.module}") is not None


def _unknown_command(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name, known, n=1)
    suggestion = f" Did you mean {close[0]!r}?" if close else ""
    return f"there is no command {name!r}; commands: {', '.join(known)}.{suggestion}"


def _print_version(wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        typer.echo(f"saeq {version('saeq')}")
    except PackageNotFoundError:
        typer.echo("saeq (run from its source folder, not installed)")
    raise typer.Exit


def build_app() -> Any:
    """The command line as typer's (click's) command object."""
    app = typer.Typer(cls=LazyGroup, help=HELP, rich_markup_mode=None, no_args_is_help=False)

    @app.callback(invoke_without_command=True)
    def saeq(
        ctx: typer.Context,
        version: bool = typer.Option(
            False, "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ) -> None:
        del version
        if ctx.invoked_subcommand is None:
            typer.echo(ctx.get_help())

    return typer.main.get_command(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the command `saeq`."""
    call: Callable[[], Any] = partial(
        build_app().main,
        args=list(arguments) if arguments is not None else None,
        prog_name="saeq",
        standalone_mode=False,
    )
    sys.exit(exit_code_of(call))


if __name__ == "__main__":
    main()
