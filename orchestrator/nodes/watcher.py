"""Watches for the end of the machine that a Ray node runs on, and drains the node in time.

One process a node, beside its raylet: it ends when that does. It joins no cluster.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Literal, Protocol

from orchestrator.nodes.presence import Presence
from orchestrator.nodes.quarantine import host_standing
from orchestrator.nodes.raylet import DrainFailed
from orchestrator.providers.notices import Announcer, Notice, NoticesUnavailable
from orchestrator.store import Store, StoreError

logger = logging.getLogger(__name__)

EVERY_S = 3.0
QUARANTINE_EVERY_S = 15.0
ALIVE_EVERY_S = 0.5

OnRebalance = Literal["note", "drain"]


class WatchedNode(Protocol):
    """The Ray node that is looked after."""

    @property
    def node_id(self) -> str:
        """Ray's id of it."""

    @property
    def is_head(self) -> bool:
        """Whether the whole cluster goes with it."""

    def is_alive(self) -> bool:
        """Whether its process runs."""

    def drain(self, why: str, deadline_s: float | None) -> None:
        """Have nothing more put on it. Raises DrainFailed."""


class AlreadyWatched(ValueError):
    """Another process watches the same node."""


class NodeWatcher:
    """Polls one source of notices and the quarantine, and drains the node once for what it finds.

    Args:
        source: None where nobody announces anything: then only a quarantine drains the node.
        store: where the quarantine is; None: nobody asks.
        presence: told what becomes of the node.
        say: told each thing once, a line.
        host: the machine's name, as a quarantine has it.
    """

    def __init__(
        self,
        node: WatchedNode,
        source: Announcer | None,
        store: Store | None,
        presence: Presence | None,
        say: Callable[[str], None],
        *,
        host: str = "",
    ) -> None:
        self._node, self._source, self._store, self._presence = node, source, store, presence
        self._say, self._host = say, host
        self._kept_out = ""
        self._drained_for = ""
        self._said: set[str] = set()
        self._ended = threading.Event()

    def run(self, every_s: float = EVERY_S, on_rebalance: OnRebalance = "note") -> None:
        """Returns when the node's process has ended.

        Args:
            on_rebalance: `note` only tells of a rebalance recommendation. Most machines with one
                live on for hours, and a drain cannot be taken back.
        """
        threading.Thread(target=self._look_at_quarantine, name="quarantine", daemon=True).start()
        try:
            next_look = time.monotonic()
            while self._node.is_alive():
                if time.monotonic() >= next_look:
                    self.look(on_rebalance)
                    next_look = time.monotonic() + every_s
                time.sleep(min(ALIVE_EVERY_S, every_s))
        finally:
            self._ended.set()
        self._say(f"Ray node {self._node.node_id[:10]} has ended")

    def look(self, on_rebalance: OnRebalance = "note") -> None:
        """One round: ask, and drain if it is time to."""
        notice = self._poll()
        if notice is not None:
            is_to_drain = notice.is_due or (notice.kind, on_rebalance) == ("rebalance", "drain")
            self._on_notice(notice, is_to_drain)
        elif self._kept_out and not self._drained_for:
            self._drain(f"its host is in quarantine: {self._kept_out}", None)

    def _poll(self) -> Notice | None:
        if self._source is None:
            return None
        try:
            notice = self._source.poll()
        except NoticesUnavailable as error:
            self._say_once("unavailable", f"notices cannot be asked for: {error}")
            return None
        if "unavailable" in self._said:
            self._said.discard("unavailable")
            self._say("notices can be asked for again")
        return notice

    def _on_notice(self, notice: Notice, is_to_drain: bool) -> None:
        if not is_to_drain:
            self._tell_state(str(notice))
            self._say_once(notice.words, f"{notice}: noted, the node works on")
        elif self._drained_for == notice.words:
            self._tell_state(f"draining: {notice}")
        else:
            self._drain(str(notice), notice.deadline_s, notice.words)

    def _drain(self, why: str, deadline_s: float | None, name: str = "quarantine") -> None:
        """A request that fails is made again at the next look."""
        if name == "quarantine" and self._node.is_head:
            self._say_once("head", f"{why}; the head is not drained for that: drain it yourself")
            return
        self._tell_state(f"draining: {why}")
        try:
            self._node.drain(why, deadline_s)
        except DrainFailed as error:
            self._say_once(f"failed {error}", f"{why}; not drained yet: {error}; trying again")
            return
        self._drained_for = name
        self._say(f"{why}: the node is drained, its trials checkpoint and go elsewhere")

    def _look_at_quarantine(self) -> None:
        """In a thread of its own: a store that does not answer must not hide a notice."""
        if self._store is None:
            return
        while not self._ended.is_set():
            try:
                standing = host_standing(self._store, self._host)
                self._kept_out = standing.why or "no reason given" if standing.is_kept_out else ""
            except StoreError as error:
                logger.info("the quarantine could not be looked at: %s", error)
            self._ended.wait(QUARANTINE_EVERY_S)

    def _tell_state(self, state: str) -> None:
        if self._presence is not None:
            self._presence.say(state=state)

    def _say_once(self, key: str, what: str) -> None:
        if key not in self._said:
            self._said.add(key)
            self._say(what)


def watch_alone(node_id: str) -> socket.socket:
    """Be the only one who watches this node, for as long as the answer is kept open.

    A name in the kernel: nothing to clear away, however the process ends. Raises AlreadyWatched.
    """
    name = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        name.bind(f"\0saeq-node-watch-{node_id}")
    except OSError as error:
        name.close()
        raise AlreadyWatched(f"Ray node {node_id[:10]} is watched already") from error
    return name
