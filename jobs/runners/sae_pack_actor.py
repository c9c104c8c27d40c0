"""The Ray actor around `sae.pack.Pack`: one process that trains every SAE of one stream on one GPU.

A thread steps the pack; the actor's methods run in Ray's thread pool and wait for it. Members whose
trial has not been heard of for a while are dropped; a pack without members ends by itself.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from jobs.runners.draining import this_node_drains
from jobs.runners.output import RecentOutput, keep_output, said_for
from sae.stream_errors import StreamError
from steering.errors import BadSteeringInput

if TYPE_CHECKING:
    from sae.pack import Pack
    from sae.stream import ActivationStream

logger = logging.getLogger(__name__)

NAMESPACE = "saeq"
SILENT_MEMBER_AFTER_S = 15.0
IDLE_PACK_AFTER_S = 60.0
IDLE_ON_LEAVING_NODE_S = 2.0
"""A draining node ends as soon as nothing is on it, and with it what it costs."""
MAX_CALLS = 256

Answer = tuple[str, Any]
"""("ok", value), ("out_of_memory", detail), ("unusable" or "lost", reason), ("failed", (reason,
traceback, final)): exceptions of other libraries need not pickle, answers do."""


class SaePackActor:
    """See the module. Made by `pack_actor`, found again by its name."""

    def __init__(self, stream: Mapping[str, Any], device: str, gpu_ids: Sequence[str]) -> None:
        if gpu_ids:
            # Ray blanks CUDA_VISIBLE_DEVICES for an actor that asked for no GPU. The trial that
            # made this pack did ask; CUDA reads the variable when torch first uses the device.
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpu_ids)
        self._stream_json, self._device = stream, device
        self._pack: Pack | None = None
        self._stream: ActivationStream | None = None
        self._load_error: Answer | None = None
        self._loaded = threading.Event()
        self._moved = threading.Condition()
        self._report_at: dict[str, int] = {}
        self._reports: dict[str, Answer] = {}
        self._heard_of: dict[str, float] = {}
        self._draining: set[str] = set()
        self._sweep_of: dict[str, str] = {}
        self._idle_since = self._look_at_node_at = time.monotonic()
        self._num_attaching = 0
        self._rate = _Rate()
        self._output = RecentOutput()
        keep_output(self._output)
        logging.captureWarnings(True)
        threading.Thread(target=self._run, name="pack", daemon=True).start()

    # The stepping thread

    def _run(self) -> None:
        started = time.monotonic()
        self._load_error = self._guarded(self._load)
        seconds = time.monotonic() - started
        how = "is loaded" if self._load_error[0] == "ok" else "cannot be loaded"
        logger.info("the stream %s on %s after %.1f s", how, self._device, seconds)
        self._idle_since = time.monotonic()
        self._loaded.set()
        if self._load_error[0] != "ok" or self._pack is None:
            time.sleep(5)  # let waiting calls read the error, then make room for another try
            self._exit()
            return
        while True:
            worked = self._pack.run_step()
            self._take_reports()
            with self._moved:
                self._moved.notify_all()
                if not worked:
                    self._moved.wait(timeout=0.2)
            self._drop_silent_members()
            if self._has_no_use():
                self._exit()
                return

    def _take_reports(self) -> None:
        """Measure members that have come to where a report is due, between two steps.

        Here and not in the call that waits for it: a member need not stand still while its report
        travels, and the language model runs for all members or for none.
        """
        assert self._pack is not None
        for member, until in list(self._report_at.items()):
            answer = self._guarded(partial(self._report_if_due, member, until), member)
            if answer != ("ok", None):
                self._report_at.pop(member, None)
                self._reports[member] = answer

    def _report_if_due(self, member: str, until: int) -> dict[str, Any] | None:
        assert self._pack is not None
        tokens = self._pack.tokens(member)
        if tokens < until:
            return None
        return {"tokens": tokens, "metrics": self._pack.report(member)}

    def _load(self) -> None:
        import torch

        from sae.pack import Pack
        from sae.stream import ActivationStream
        from sae.stream_spec import StreamSpec

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        spec = StreamSpec.model_validate(self._stream_json)
        self._stream = ActivationStream(spec, device=torch.device(self._device))
        self._pack = Pack(self._stream, self._device)

    def _drop_silent_members(self) -> None:
        now = time.monotonic()
        if self._heard_of or self._num_attaching:
            self._idle_since = now
        for member, heard in list(self._heard_of.items()):
            if now - heard > SILENT_MEMBER_AFTER_S:
                logger.warning("member %s: its trial is silent, dropped", member)
                self.detach(member)

    def _has_no_use(self) -> bool:
        now = time.monotonic()
        idle_s = now - self._idle_since
        if idle_s > IDLE_ON_LEAVING_NODE_S and now >= self._look_at_node_at:
            self._look_at_node_at = now + IDLE_ON_LEAVING_NODE_S
            if this_node_drains():
                return True
        return idle_s > IDLE_PACK_AFTER_S

    def _exit(self) -> None:
        ray.kill(ray.get_runtime_context().current_actor)

    # What trials call

    def place(self) -> dict[str, Any]:
        """Where this pack runs, as soon as it is asked."""
        return {"pid": os.getpid(), "host": os.uname().nodename, "device": self._device}

    def attach(
        self, member: str, sweep: str, config: Mapping[str, Any], total: int, folder: str | None
    ) -> Answer:
        """Take a member in; answers with its tokens. Waits for the model to be loaded."""
        self._num_attaching += 1
        self._output.open(member, from_start=not self._loaded.is_set())
        try:
            return self._attach(member, sweep, config, total, folder)
        finally:
            self._num_attaching -= 1

    def _attach(
        self, member: str, sweep: str, config: Mapping[str, Any], total: int, folder: str | None
    ) -> Answer:
        self._loaded.wait()
        if self._load_error is not None and self._load_error[0] != "ok":
            return self._load_error

        def work() -> int:
            from sae.architectures import parse_architecture

            assert self._pack is not None
            checkpoint = Path(folder) if folder else None
            tokens = self._pack.attach(member, parse_architecture(dict(config)), total, checkpoint)
            self._sweep_of[member] = sweep
            self._heard_of[member] = time.monotonic()
            return tokens

        return self._guarded(work, member)

    def heard_of(self, members: Sequence[str]) -> None:
        """A trial's actor says that it is still there."""
        for member in members:
            if member in self._heard_of:
                self._heard_of[member] = time.monotonic()

    def advance(self, member: str, until: int, run_on_to: int, max_seconds: float) -> Answer:
        """Wait for a member's report at `until` tokens; answers {"tokens", "metrics" | None, ...}.

        The member may train on to `run_on_to` meanwhile and afterwards.
        """
        deadline = time.monotonic() + max_seconds

        def work() -> dict[str, Any]:
            assert self._pack is not None
            pack = self._pack
            self.heard_of([member])
            pack.set_target(member, run_on_to)
            self._report_at.setdefault(member, until)
            with self._moved:
                self._moved.notify_all()
                while member not in self._reports and member not in self._draining:
                    left = deadline - time.monotonic()
                    if left <= 0 or not self._moved.wait(timeout=left):
                        break
            report = self._reports.pop(member, ("ok", None))
            if report[0] != "ok":
                raise _ReportFailed(report)
            return {
                **(report[1] or {"tokens": pack.tokens(member), "metrics": None}),
                **self._seconds(member),
                "draining": member in self._draining,
                "at": self._load_now(),
            }

        return self._guarded(work, member)

    def save(self, member: str, folder: str) -> Answer:
        """Write a member's state into an empty folder; answers with its tokens."""

        def work() -> int:
            assert self._pack is not None
            try:
                return self._pack.save(member, Path(folder))
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise _LocalDiskFull(folder) from error
                raise

        return self._guarded(work, member)

    def finish(
        self, member: str, folder: str, ce_tokens: int, probe: dict[str, Any] | None = None
    ) -> Answer:
        """Export, load back and measure; answers {"metrics", "record", "busy_seconds"}.

        Args:
            probe: `SaeProbeConfig` as JSON, where the SAE is to be probed as well.
        """

        def work() -> dict[str, Any]:
            assert self._pack is not None
            report = self._pack.finish(member, Path(folder), ce_tokens=ce_tokens)
            metrics = {**report.metrics, **self._probed(Path(folder), probe)}
            return {"metrics": metrics, "record": report.record, **self._seconds(member)}

        return self._guarded(work, member)

    def _probed(self, folder: Path, probe: dict[str, Any] | None) -> dict[str, float]:
        if probe is None:
            return {}
        from jobs.runners.sae_probe import probe_auroc
        from jobs.sae_train import SaeProbeConfig

        assert self._stream is not None
        lm = self._stream.language_model
        return {"probe_auroc": probe_auroc(lm, folder, SaeProbeConfig(**probe))}

    def take_output(self, member: str) -> list[str]:
        """What was logged for a member, or for all, since it was last asked."""
        return self._output.take(member)

    def detach(self, member: str) -> None:
        """Let a member go; no error when it is gone already."""
        for known in (self._heard_of, self._report_at, self._reports):
            known.pop(member, None)
        self._output.close_reader(member)
        self._draining.discard(member)
        self._sweep_of.pop(member, None)
        if self._pack is not None and member in self._pack.members:
            self._pack.detach(member)

    def drain(self, sweep: str) -> int:
        """Every waiting call of a sweep comes back at once, to save what there is."""
        members = [member for member, owner in self._sweep_of.items() if owner == sweep]
        self._draining.update(members)
        with self._moved:
            self._moved.notify_all()
        return len(members)

    def _seconds(self, member: str) -> dict[str, float]:
        assert self._pack is not None
        lm_seconds, lm_alone_seconds = self._pack.lm_seconds(member)
        return {
            "busy_seconds": self._pack.busy_seconds(member),
            "lm_seconds": lm_seconds,
            "lm_alone_seconds": lm_alone_seconds,
        }

    def _load_now(self) -> dict[str, Any]:
        assert self._pack is not None
        assert self._stream is not None
        return {
            **self.place(),
            "members": len(self._pack.members),
            "lm_tokens": self._stream.lm_tokens,
            "lm_tokens_per_second": self._rate.update(self._stream.lm_tokens),
        }

    def _guarded(self, work: Callable[[], Any], member: str = "") -> Answer:
        """Run and answer; what fails here fails one trial and leaves the pack standing."""
        try:
            with said_for(member or None):
                return "ok", work()
        except _ReportFailed as failed:
            return failed.answer
        except BaseException as error:  # noqa: BLE001 - reported whole to the trial that asked
            from sae.pack import UnknownMember
            from sae.step_backend import is_out_of_memory

            text = traceback.format_exc()
            if isinstance(error, StreamError | BadSteeringInput | _LocalDiskFull):
                return "unusable", str(error)
            if isinstance(error, UnknownMember):
                return "lost", "its pack had dropped it: nothing was heard of it for too long"
            if is_out_of_memory(error):
                with said_for(member or None):
                    logger.warning("out of memory\n%s", text.rstrip())
                return "out_of_memory", str(error).splitlines()[0] if str(
                    error
                ) else "out of memory"
            worded = isinstance(error, ValueError) and type(error).__module__.startswith("sae.")
            line = str(error) if worded else f"{type(error).__name__}: {error}".splitlines()[0]
            return "failed", (line, text, worded)


class _LocalDiskFull(Exception):
    """No room for a member's state on this machine: no fault of its trial."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.folder = folder

    def __str__(self) -> str:
        return f"this machine's disk is full at {self.folder}; free space there or set TMPDIR"


class _ReportFailed(Exception):
    """A report was due and could not be made; the answer says why."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.answer = answer


class _Rate:
    """Tokens per second over about the last ten seconds."""

    def __init__(self) -> None:
        self._points: list[tuple[float, int]] = []

    def update(self, tokens: int) -> float:
        now = time.monotonic()
        self._points = [p for p in self._points if now - p[0] < 10] + [(now, tokens)]
        seconds = now - self._points[0][0]
        return (tokens - self._points[0][1]) / seconds if seconds > 0 else 0.0


def pack_actor(
    node_id: str, stream: Mapping[str, Any], key: str, device: str, gpu_ids: Sequence[str]
) -> tuple[str, Any]:
    """The pack of this node, device and stream: found by its name, or made. (name, handle)."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    name = f"pack-{node_id[:10]}-{'.'.join(gpu_ids) or 'cpu'}-{key}"
    remote_class = ray.remote(SaePackActor)
    handle = remote_class.options(
        name=name,
        namespace=NAMESPACE,
        get_if_exists=True,
        lifetime="detached",
        num_cpus=0,
        max_concurrency=MAX_CALLS,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
    ).remote(dict(stream), device, list(gpu_ids))
    return name, handle
