"""Asks a Ray cluster to drain one of its nodes, in a process of its own.

`python -m orchestrator.nodes.drain_node ADDRESS NODE_ID WHY [DEADLINE_UNIX_MS]`. What `ray
drain-node` does (ray 2.60: hidden, outside Ray's promises), with a reason that lets whoever loses
work there know that it was taken away and did not fail.
"""

from __future__ import annotations

import sys


def main(arguments: list[str]) -> int:
    """0 once the cluster has taken it in; else 1, and the last line of stderr says why."""
    address, node_id, why, *deadline = arguments
    import ray
    from ray.core.generated import autoscaler_pb2

    client = ray._raylet.GcsClient(address=address)
    is_taken, refusal = client.drain_node(
        node_id,
        autoscaler_pb2.DRAIN_NODE_REASON_PREEMPTION,
        why,
        int(deadline[0]) if deadline else 0,
    )
    if not is_taken:
        sys.stderr.write(f"the cluster refused: {refusal}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
