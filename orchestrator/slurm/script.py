"""The script of a worker job, as text: what sbatch is given, what `--dry-run` shows."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence

from orchestrator.slurm import script_parts
from orchestrator.slurm.folder import SlurmFolder
from orchestrator.slurm.options import WorkerOptions
from orchestrator.slurm.quantities import format_time


def sbatch_text(
    options: WorkerOptions,
    folder: SlurmFolder,
    store_url: str,
    *,
    jobs: int | None = None,
    exclude: Sequence[str] = (),
    python: str | None = None,
) -> str:
    """The whole script.

    Args:
        store_url: as every node reaches it: an absolute folder, or s3://...
        jobs: as many of them, instead of what the options say: one that is retried elsewhere.
        exclude: hosts beside those of the options: in quarantine.
        python: for jobs that ask for none and whose setup brings none; by default this one.
    """
    num_jobs = options.jobs if jobs is None else jobs
    hosts = tuple(dict.fromkeys([*options.exclude, *exclude]))
    head = "\n".join(_directives(options, folder, num_jobs, hosts))
    values = "\n".join(_values(options, folder, store_url, python or sys.executable))
    parts = [script_parts.BEGINNING, script_parts.SCRATCH, script_parts.ENVIRONMENT]
    parts += [script_parts.RAY] if options.nodes > 1 else []
    parts += [script_parts.SERVE, _serve(options), script_parts.WAIT, script_parts.END]
    return f"#!/bin/bash\n{head}\n\n{values}\n" + "".join(parts)


def _directives(
    options: WorkerOptions, folder: SlurmFolder, num_jobs: int, hosts: Sequence[str]
) -> Iterator[str]:
    is_array = num_jobs > 1
    asked: list[tuple[str, object | None]] = [
        ("job-name", f"saeq-{folder.name}"),
        ("output", _quoted(str(folder.output_pattern(is_array=is_array)))),
        ("open-mode", "append"),
        ("export", "ALL"),
        ("array", _array(num_jobs, options.array_throttle) if is_array else None),
        ("partition", options.partition),
        ("account", options.account),
        ("qos", options.qos),
        ("nodes", options.nodes),
        ("ntasks-per-node", 1),
        ("cpus-per-task", options.cpus),
        ("gres", _gres(options)),
        ("mem", options.memory),
        ("time", None if options.time_s is None else format_time(options.time_s)),
        ("constraint", options.constraint and _quoted(options.constraint)),
        ("exclude", ",".join(hosts) or None),
        ("signal", f"B:USR2@{options.signal_s}"),
    ]
    yield from (f"#SBATCH --{name}={value}" for name, value in asked if value is not None)
    yield f"#SBATCH --{'requeue' if options.requeue else 'no-requeue'}"
    for name, given in options.sbatch.items():
        yield f"#SBATCH --{name}={_quoted(given)}" if given else f"#SBATCH --{name}"


def _array(num_jobs: int, throttle: int | None) -> str:
    return f"0-{num_jobs - 1}" + (f"%{throttle}" if throttle else "")


def _gres(options: WorkerOptions) -> str | None:
    """--gres is what every select plugin understands; --gpus is not."""
    return f"gpu:{options.gpus}" if options.gpus and options.num_gpus else None


def _quoted(text: str) -> str:
    """As sbatch reads its own lines, which is not quite the way of a shell."""
    return f'"{text}"' if any(character in text for character in " &|()[]*,;") else text


def _values(
    options: WorkerOptions, folder: SlurmFolder, store_url: str, python: str
) -> Iterator[str]:
    yield "# A worker of `saeq slurm up`: one `saeq serve`, and what SLURM wants of it."
    devices = f"--gres={_gres(options)}" if _gres(options) else ""
    values = {
        "up": str(folder.path),
        "store": store_url,
        "python_asked": options.python or "",
        "python_there": python,
        "requeue": "yes" if options.requeue else "no",
        "signal_s": str(options.signal_s),
    }
    yield from (f"{name}={shlex.quote(value)}" for name, value in values.items())
    yield f"devices=({devices})"
    for name, value in sorted(options.environment.items()):
        yield f"export {name}={shlex.quote(value)}"


def _serve(options: WorkerOptions) -> str:
    """The step that works; `exec` keeps the number that was written down."""
    step = "srun --nodes=1 --ntasks=1 --cpus-per-task=$cpus --export=ALL --mpi=none"
    more = ""
    if options.nodes > 1:
        step += ' \\\n  --nodelist="$host" --overlap --gres=none'
        more = ' --ray-address "$address"'
    else:
        step += ' "${devices[@]}"'
    return f"""{step} \\
  --output="$job/serve.log" --open-mode=append \\
  bash -c 'echo $$ >"$0" && exec "$@"' "$job/serve.pid" \\
  "$python" -m orchestrator.cli serve --plain --store "$store" \\
  --idle-for {options.idle_s}s "${{until[@]}}"{more} &
"""
