"""What one trial does: one module a job kind. Importing the folder finds every kind.

Modules of one's own are named in SAEQ_KINDS, separated by commas. It has to be set, and they have
to be importable, wherever a part of saeq runs: also where Ray is started on each node.
"""

import os
from importlib import import_module
from pkgutil import iter_modules

from jobs.kind import JobKind as JobKind

OWN_KINDS = "SAEQ_KINDS"


class KindNotFound(ValueError):
    """SAEQ_KINDS names what cannot be imported."""

    def __init__(self, module: str, why: str) -> None:
        super().__init__(module, why)
        self.module, self.why = module, why

    def __str__(self) -> str:
        return (
            f"{OWN_KINDS} names {self.module!r}, which cannot be imported: {self.why}; name a "
            "module that Python finds (PYTHONPATH), or leave the variable out"
        )


for _module in iter_modules(__path__):
    if not _module.ispkg and not _module.name.startswith("_"):
        import_module(f"{__name__}.{_module.name}")
for _own in os.environ.get(OWN_KINDS, "").replace(",", " ").split():
    try:
        import_module(_own)
    except ImportError as _error:
        raise KindNotFound(_own, str(_error)) from _error
