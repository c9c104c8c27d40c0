"""`saeq node up`: from an address to a machine that serves, told as it comes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orchestrator.nodes.records import NodeSide, read_node, read_side
from orchestrator.nodes.stages import Stage
from orchestrator.redaction import Redactor
from orchestrator.ssh_nodes.code_here import CodeHere
from orchestrator.ssh_nodes.connection import SshConnection
from orchestrator.ssh_nodes.env_file import has_store_keys, rendered
from orchestrator.ssh_nodes.fitness import HostUnfit, host_faults
from orchestrator.ssh_nodes.order import Choices, NodeOrder, need_key
from orchestrator.ssh_nodes.parcel import packed, script, unpack_and_launch
from orchestrator.ssh_nodes.ssh_faults import SshFailed
from orchestrator.ssh_nodes.start_watch import StartWatch, stage_line
from orchestrator.ssh_nodes.starter_record import StarterRecord
from orchestrator.ssh_nodes.survey import Machine
from orchestrator.ssh_nodes.target import SshTarget
from orchestrator.store import Store

SURVEY_WITHIN_S = 120.0
SEND_WITHIN_S = 300.0
STOP_WITHIN_S = 90.0


class NodeElsewhere(ValueError):
    """A node of that name is another machine's, or the host has another node; says what to do."""


class NodeDiffers(ValueError):
    """The node is up with other settings, code or variables than asked for; says what to do."""


@dataclass(frozen=True)
class Variables:
    """What the node gets into its environment; shown nowhere."""

    values: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Variables({', '.join(sorted(self.values))})"


class NodeStart:
    """One call of `saeq node up`.

    Args:
        say: one line for people.
    """

    def __init__(
        self,
        target: SshTarget,
        order: NodeOrder,
        variables: Variables,
        code: CodeHere,
        store: Store,
        say: Callable[[str], None],
    ) -> None:
        self._target, self._order, self._code, self._store = target, order, code, store
        self._variables, self._say = variables, say
        self._began = time.monotonic()
        earlier = read_side(store, order.name, "starter")
        self._refuse_foreign(earlier)
        # Secrets that are sent away, and those of this environment, which ssh may have read.
        sent, here = Redactor(variables.values), Redactor()
        labels = {**order.labels, **target.labels, "folder": order.folder}
        self._record = StarterRecord(
            store,
            order.name,
            order.machine,
            labels,
            lambda text: here(sent(text)),
            is_held=earlier is not None and may_be_there(earlier),
        )

    def run(self, *, restart: bool = False, until: Stage = "lease") -> str:
        """Bring it up, or follow a start that is under way; answers with how it stands.

        Raises:
            SshFailed, HostUnfit, NodeDiffers, NodeElsewhere, StartFailed: see there.
        """
        self._mark("asked", str(self._target))
        try:
            with SshConnection(self._target) as connection:
                machine = self._survey(connection)
                if machine.serving and restart:
                    self._note("it is up; if anything differs it gives its trials back first")
                launched = self._launch(connection, machine, restart=restart)
                if launched == "same":
                    return "already up, as it was asked for"
                self._record.release()
                if launched == "busy":
                    self._note("its start is under way already; following it")
                watch = StartWatch(
                    connection,
                    self._store,
                    self._record,
                    self._order.folder,
                    say=self._say,
                    began=self._began,
                    until=until,
                )
                watch.follow()
                self._record.label(**{"runs-under": watch.seen.under})
                if watch.has_ended:
                    return "it was up and has ended by itself, as --serve-options have it"
                return "up; nothing waits for it in the queue" if watch.rests else "up"
        except SshFailed as error:
            self._record.fail("allocated", error.why, "")
            raise

    def dry_run(self) -> list[str]:
        """Look at the host and say what would be done; neither host nor store is changed."""
        with SshConnection(self._target) as connection:
            machine = self._look_over(connection)
        choices, need = self._choices(machine)
        faults = self._faults(machine, need)
        if faults:
            raise HostUnfit(str(self._target), faults)
        return [f"host         {machine.described()}", *self._plan(machine, choices, need)]

    def _plan(self, machine: Machine, choices: Choices, need: str) -> list[str]:
        order = self._order
        if order.environment:
            environment = f"{order.environment}, used as it is"
        elif need in machine.ready:
            environment = f"{machine.root}/environments/{need}, there already"
        else:
            index = f" from {choices.torch_index}" if choices.torch_index else ""
            environment = (
                f"made with {choices.make_with} for Python {choices.python_version}: torch "
                f"{self._code.torch}{index}, {len(self._code.constraints)} packages pinned"
            )
        under = machine.under if order.under == "auto" else order.under
        names = ", ".join(sorted(self._variables.values)) or "none"
        state = f"{machine.node} {'is up' if machine.serving else 'is not up'}"
        serve = " ".join(["saeq serve --store", order.store, *order.serve_options])
        return [
            f"folder       {machine.root} ({state if machine.node else 'nothing is there'})",
            f"environment  {environment}",
            f"variables    {names} (values over ssh into a file with mode 600)",
            f"labels       {order.labels_text or 'none'}",
            f"serve        {serve}",
            f"runs under   {under}",
        ]

    def _survey(self, connection: SshConnection) -> Machine:
        """Raises HostUnfit."""
        self._mark("allocated", f"ssh answers after {time.monotonic() - self._began:.1f} s")
        machine = self._look_over(connection)
        self._note(machine.described())
        faults = self._faults(machine, self._choices(machine)[1])
        if faults and not machine.starting:
            self._record.fail("script", "; ".join(faults), "")
            raise HostUnfit(str(self._target), faults)
        self._warn_of_keys(machine)
        return machine

    def _look_over(self, connection: SshConnection) -> Machine:
        host, port = self._order.endpoint or ("", 0)
        answer = connection.run(
            script("node_state.sh", "survey.sh"),
            [
                self._order.folder,
                self._order.python or "",
                host,
                str(port),
                self._file_in_store(),
            ],
            within_s=SURVEY_WITHIN_S,
        )
        machine = Machine.parse(answer.output)
        if answer.exit_code != 0 or not machine.root:
            raise SshFailed(
                str(self._target),
                f"it does not run scripts ({answer.last_words})",
                "saeq needs a login that gives a shell and has bash",
            )
        return machine

    def _file_in_store(self) -> str:
        """Where a store is a folder, a file that the host has to see in it as well."""
        if self._order.store.startswith("s3://"):
            return ""
        if read_side(self._store, self._order.name, "starter") is None:
            return self._order.store  # a dry run writes none
        return f"{self._order.store}/{self._store.layout.node_starter(self._order.name)}"

    def _choices(self, machine: Machine) -> tuple[Choices, str]:
        here = "{}.{}".format(*sys.version_info[:2])
        choices = Choices.of(self._order, machine, here)
        return choices, need_key(self._order, choices, self._code.constraints)

    def _faults(self, machine: Machine, need: str) -> list[str]:
        return host_faults(self._order, machine, has_environment=need in machine.ready)

    def _launch(self, connection: SshConnection, machine: Machine, *, restart: bool) -> str:
        """Send everything; answers with `started`, `busy` or `same`."""
        choices, need = self._choices(machine)
        node = {
            "name": self._order.name + "\n",
            "code": self._code.sha256[:12] + "\n",
            "settings": self._order.settings(
                code=self._code.sha256[:12],
                version=self._code.version,
                torch=self._code.torch,
                need=need,
            ),
            "choices": choices.text,
            "env": rendered(self._variables.values),
        }
        answer = connection.feed(
            unpack_and_launch(self._order.folder, restart=restart),
            packed(self._code, node),
            within_s=SEND_WITHIN_S + STOP_WITHIN_S,
        )
        last = answer.output.strip().splitlines()[-1:] or [""]
        word, _, told = last[0].partition(" ")
        if word in ("started", "same"):
            return word
        if word == "busy" and told in ("", self._order.name):
            return "busy"
        self._refuse(word, told)
        raise HostUnfit(
            str(self._target),
            [f"it did not take what was sent ({answer.last_words}); is its disk full?"],
        )

    def _refuse(self, word: str, told: str) -> None:
        name = self._order.name
        if word in ("other", "busy"):
            raise NodeElsewhere(
                f"{self._target}: node {told} is up in {self._order.folder} there; "
                f"`saeq node down {told}` ends it, or give --name {told}, or another --folder"
            )
        if word == "differs":
            what = {"settings": "other settings or another saeq", "env": "other variables"}
            differs = " and ".join(what.get(part, part) for part in told.split())
            raise NodeDiffers(
                f"{name} is up on {self._target} with {differs}; --restart has it give its trials "
                "back and start anew as asked for now"
            )

    def _refuse_foreign(self, earlier: NodeSide | None) -> None:
        if earlier is None or not may_be_there(earlier):
            return
        was = {name: earlier.labels.get(name) for name in ("ssh-target", "ssh-port")}
        now = {name: self._target.labels.get(name) for name in was}
        record = read_node(self._store, self._order.name)
        if earlier.kind == "ssh" and (was == now or record is None or not record.is_fresh()):
            return
        raise NodeElsewhere(
            f"the store knows a node {self._order.name} ({earlier.kind}, "
            f"{was['ssh-target'] or earlier.host}); give this one another --name"
        )

    def _warn_of_keys(self, machine: Machine) -> None:
        needs_keys = self._order.store.startswith("s3://")
        if needs_keys and not has_store_keys(self._variables.values) and not machine.serving:
            self._note(
                "no credentials for the store were given (--env-file FILE, or --env "
                "AWS_ACCESS_KEY_ID --env AWS_SECRET_ACCESS_KEY): the host needs its own"
            )

    def _note(self, what: str) -> None:
        self._say(f"{'':>10}{what}")

    def _mark(self, stage: Stage, detail: str) -> None:
        self._record.mark(stage, detail)
        self._say(stage_line(time.monotonic() - self._began, stage, detail))


def may_be_there(side: NodeSide) -> bool:
    """Whether, by its starter's record, a node is up or on its way: not ended, not failed."""
    return side.failure is None and all(mark.stage != "ended" for mark in side.marks)
