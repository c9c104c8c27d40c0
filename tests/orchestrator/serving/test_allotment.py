"""Which sweeps get a driver, and why the others wait."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.log.events import Prioritised
from orchestrator.log.sweep_log import LogWriter
from orchestrator.planning.devices import GPUS
from orchestrator.planning.node_types import ClusterShape, NodeType
from orchestrator.queue import Queue
from orchestrator.serving.allotment import Allotter
from orchestrator.serving.room import memory_of
from orchestrator.serving.sweep_worker import SweepWorker
from orchestrator.spec.sweep import SweepSpec, parse_sweep
from orchestrator.store import Store
from tests.orchestrator.serving.some_ray import SomeRay

TEXT = """
name: {name}
job: sae_train
model: {{builtin: smollm2-135m}}
data: {{builtin: python-docs}}
hooks: [{hook}]
tokens: 90k
batch_tokens: 1000
space: {{architecture: topk, d_sae: 64, k: {{choice: [4, 8]}}, lr: {{choice: [1.0e-3, 2.0e-3]}}}}
search: {{sampler: grid}}
"""


class Setting:
    """Sweeps in a store, and workers that never start a driver."""

    def __init__(self, folder: Path) -> None:
        self.store = Store.open(str(folder / "store"))

    def worker(
        self, name: str, hook: str = "model.layers.1", priority: int | None = None
    ) -> SweepWorker:
        text = TEXT.format(name=name, hook=hook)
        queued, _ = Queue(self.store).submit(parse_sweep(text), text)
        if priority is not None:
            order = Prioritised(by="me", order=1, priority=priority)
            LogWriter(self.store, name, "control").append(order)
        worker = SweepWorker(self.store, queued, SomeRay())
        worker.look()
        return worker


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path)


def device(usable_bytes: int, num_devices: int = 1) -> ClusterShape:
    gpu = GPUS["A100-80"].model_copy(update={"usable_bytes": usable_bytes})
    resources = {"GPU": float(num_devices), "CPU": 8.0}
    return ClusterShape(types=(NodeType(name="a", resources=resources, num_up=1, gpu=gpu),))


def spec(hook: str) -> SweepSpec:
    return parse_sweep(TEXT.format(name="any", hook=hook))


def test_a_sweep_alone_has_no_limit(setting: Setting) -> None:
    allotment = Allotter(4, lambda: device(80 * 2**30)).allot([setting.worker("only")])
    assert allotment.slots == {"only": None}
    assert allotment.usable_bytes == {}


def test_two_sweeps_share_a_device(setting: Setting) -> None:
    workers = [setting.worker("a"), setting.worker("b")]
    allotment = Allotter(4, lambda: device(80 * 2**30)).allot(workers)
    assert allotment.slots == {"a": 2, "b": 2}
    assert allotment.usable_bytes == {}, "one stream: nothing to leave room for"


def test_no_more_sweeps_at_once_than_asked_for_and_the_urgent_one_first(
    setting: Setting,
) -> None:
    workers = [setting.worker("early"), setting.worker("urgent", priority=2)]
    allotment = Allotter(1, lambda: device(80 * 2**30)).allot(workers)
    assert allotment.slots == {"urgent": None}
    assert allotment.why_not == {"early": "waits for its turn: 1 sweeps are being worked on"}


def test_another_language_model_has_to_fit_beside_the_first(setting: Setting) -> None:
    one, other = memory_of(spec("model.layers.1")), memory_of(spec("model.layers.2"))
    workers = [setting.worker("a"), setting.worker("b", hook="model.layers.2")]
    both = one.shared_bytes + other.shared_bytes
    short = Allotter(4, lambda: device(both)).allot(workers)
    assert short.slots == {"a": None}
    assert short.why_not["b"].startswith("waits for memory")
    ample = Allotter(4, lambda: device(2 * both)).allot(workers)
    assert ample.slots == {"a": 2, "b": 2}
    assert ample.usable_bytes == {
        "a": 2 * both - other.shared_bytes,
        "b": 2 * both - one.shared_bytes,
    }
