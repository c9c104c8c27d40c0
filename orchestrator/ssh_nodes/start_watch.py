"""Follows a start that goes on by itself on the host: its files over ssh, its word in the store."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.nodes.records import NodeSide, read_side
from orchestrator.nodes.stages import STAGES, WITHIN_S, WORDS, Mark, Stage, parse_lines
from orchestrator.ssh_nodes.connection import SshConnection
from orchestrator.ssh_nodes.parcel import script
from orchestrator.ssh_nodes.ssh_faults import SshFailed
from orchestrator.ssh_nodes.starter_record import StarterRecord
from orchestrator.store import Store

LOOK_EVERY_S = 1.0
SAY_EVERY_S = 30.0
MAX_DEATHS = 3
"""Of serve, before its start counts as failed; it is tried on there."""
BY_ITSELF: tuple[Stage, ...] = ("probe", "ray", "lease", "report")
"""Stages that the node tells of in the store."""
TAIL_LINES = 15
WAITS = " waits: "
"""In what serve says of its state: there are sweeps, and none that it could work on now."""


class StartFailed(ValueError):
    """A stage was not reached."""

    def __init__(self, node: str, stage: Stage, why: str, tail: str, way_on: str) -> None:
        super().__init__(node, stage, why, tail, way_on)
        self.node, self.stage, self.why, self.tail = node, stage, why, tail
        self.way_on = way_on

    def __str__(self) -> str:
        lines = "".join(f"\n    {line}" for line in self.tail.splitlines())
        return f"{self.node}: not reached: {WORDS[self.stage]}: {self.why}{lines}\n{self.way_on}"


@dataclass
class Seen:
    """What the host said at one look."""

    clock: float = 0.0
    node: str = ""
    starting: bool = False
    serving: bool = False
    under: str = ""
    deaths: int = 0
    exit_code: str = ""
    failure: str = ""
    doing: str = ""
    marks: list[Mark] = field(default_factory=list)

    @classmethod
    def parse(cls, text: str) -> Seen:
        """Read the lines of look.sh."""
        seen, stages = cls(), []
        for line in text.splitlines():
            word, _, value = line.partition(" ")
            if word == "stage":
                stages.append(value)
            elif word in ("starting", "serving"):
                setattr(seen, word, True)
            elif word in ("node", "under", "doing", "failure"):
                setattr(seen, word, value.strip())
            elif word == "now":
                seen.clock = float(value)
            elif word == "deaths":
                count, _, seen.exit_code = value.partition(" ")
                seen.deaths = int(count)
        seen.marks = parse_lines("\n".join(stages))
        return seen


class StartWatch:
    """Tells of each stage as it is reached, and of the one that is not.

    Args:
        say: one line for people.
        began: when it was asked for, by this process's monotonic clock.
        until: the stage at which nobody has to look on any more.
    """

    def __init__(
        self,
        connection: SshConnection,
        store: Store,
        record: StarterRecord,
        folder: str,
        *,
        say: Callable[[str], None],
        began: float,
        until: Stage = "lease",
    ) -> None:
        self._connection, self._store, self._record = connection, store, record
        self._folder, self._say, self._until = folder, say, until
        self._began = began
        self._reached_at = self._said_at = time.monotonic()
        self._reached: Stage = "allocated"
        self._problem = ""
        self._itself: NodeSide | None = None
        self.seen = Seen()

    def follow(self) -> None:
        """Returns once the stage was reached, or there is no work for what comes after the start.

        Raises:
            StartFailed: a deadline passed, or the host says that it failed.
        """
        while True:
            self._look()
            if self._is_done():
                return
            self._judge()
            time.sleep(LOOK_EVERY_S)

    def _look(self) -> None:
        """One look at both places; a line that is cut is looked over again."""
        try:
            answer = self._connection.run(script("node_state.sh", "look.sh"), [self._folder])
        except SshFailed as error:
            if self._problem != error.why:
                self._say(f"         {error.why}; the start goes on there, looking again")
            self._problem = error.why
        else:
            self._problem = ""
            self.seen = Seen.parse(answer.output)
            offset_s = time.time() - self.seen.clock
            for mark in self.seen.marks:
                if self._is_new(mark.stage):
                    told = self._record.mark(mark.stage, mark.detail, mark.at + offset_s)
                    self._reach(told)
        if STAGES.index(self._reached) < STAGES.index("environment"):
            return  # what it says now is of an earlier start
        itself = read_side(self._store, self._record.side.id, "self")
        script_at = next((mark.at for mark in self.seen.marks if mark.stage == "script"), 0.0)
        self._itself = itself if itself is not None and itself.since >= script_at else None
        if self._itself is None or not self._itself.beat:
            return
        for mark in self._itself.marks:
            if mark.stage in BY_ITSELF and self._is_new(mark.stage):
                self._reach(mark)

    def _is_new(self, stage: Stage) -> bool:
        return STAGES.index(stage) > STAGES.index(self._reached)

    def _reach(self, mark: Mark) -> None:
        self._reached, self._reached_at = mark.stage, time.monotonic()
        self._said_at = self._reached_at
        self._say(stage_line(self._reached_at - self._began, mark.stage, mark.detail))

    def _is_done(self) -> bool:
        """Whether nothing more is to be expected."""
        if STAGES.index(self._reached) >= STAGES.index(self._until):
            return True
        return self.has_ended or (self._next() == "ray" and self.rests)

    @property
    def has_ended(self) -> bool:
        """Whether serve is over, as its options had it."""
        marks = self._itself.marks if self._itself is not None else ()
        return not self.seen.serving and any(mark.stage == "ended" for mark in marks)

    @property
    def rests(self) -> bool:
        """Whether serve is there and says that there is nothing for it to do."""
        state = self._itself.state if self._itself is not None else ""
        return state == "idle" or WAITS in state

    def _next(self) -> Stage:
        return STAGES[STAGES.index(self._reached) + 1]

    def _judge(self) -> None:
        now, stage = time.monotonic(), self._next()
        if self.seen.failure:
            word, _, why = self.seen.failure.partition(" ")
            self._fail(word if word in STAGES else stage, why, "start")
        told = self._itself.failure if self._itself is not None else None
        if told is not None:
            self._fail(told.stage, told.why, "serve")
        if self.seen.deaths >= MAX_DEATHS and stage in BY_ITSELF:
            why = f"serve ended {self.seen.deaths} times, with exit code {self.seen.exit_code}"
            self._fail(stage, why, "serve")
        if self.seen.clock and not (self.seen.starting or self.seen.serving or self._problem):
            self._fail(
                stage,
                "nothing runs there any more: it was killed, or the machine restarted",
                "start",
            )
        limit_s = WITHIN_S[stage]
        if limit_s is not None and now - self._reached_at > limit_s:
            self._fail(stage, f"not within {limit_s:.0f} s", _log_of(stage))
        if now - self._said_at > SAY_EVERY_S:
            self._said_at = now
            self._say_still(stage, now)

    def _say_still(self, stage: Stage, now: float) -> None:
        limit_s = WITHIN_S[stage]
        of = f" of at most {limit_s:.0f} s" if limit_s is not None else ""
        doing = self._record.clean(self.seen.doing) if stage not in BY_ITSELF else ""
        told = f": {doing}" if doing else ""
        self._say(f"         still not {WORDS[stage]}, {now - self._reached_at:.0f} s{of}{told}")

    def _fail(self, stage: str, why: str, log: str) -> None:
        found: Stage = next(one for one in STAGES if one == stage)
        failure = self._record.fail(found, why, self._tail(log))
        raise StartFailed(
            self._record.side.id, found, failure.why, failure.tail, way_on(self._record.side.id)
        )

    def _tail(self, log: str) -> str:
        try:
            return tail(self._connection, self._folder, log, TAIL_LINES)
        except SshFailed:
            return ""


def way_on(node: str) -> str:
    """What to do about a start that failed."""
    return (
        "once that is mended, the same `saeq node up` goes on where it stopped; "
        f"`saeq node down {node}` clears up"
    )


def stage_line(age_s: float, stage: Stage, detail: str) -> str:
    """A stage as `saeq node up` prints it."""
    return f"{age_s:6.0f} s  {WORDS[stage]:<18} {detail}".rstrip()


def tail(connection: SshConnection, folder: str, log: str, num_lines: int) -> str:
    """Last lines of `node/start.log` or `node/serve.log`. Raises ConnectionLost."""
    program = 'tail -n "$3" "$(folder_of "$1")/node/$2.log" 2>/dev/null | tr "\\r" "\\n"\n'
    answer = connection.run(script("node_state.sh") + "\n" + program, [folder, log, str(num_lines)])
    return answer.output.strip("\n")


def _log_of(stage: Stage) -> str:
    return "serve" if stage in BY_ITSELF else "start"
