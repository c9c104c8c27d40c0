"""When a trial is stopped early: one module here is one rule, found by being in this folder.

`guards` are the rules that are always on; `strata` says which trials may be compared.
"""

from importlib import import_module
from pkgutil import iter_modules

from orchestrator.stopping.base import (
    StoppingConfig,
    Verdict,
    parse_stopping,
    stopping_class,
)
from orchestrator.stopping.guards import GuardsConfig, GuardVerdict, judge_guards
from orchestrator.stopping.judgement import judge_standing
from orchestrator.stopping.strata import compared_with, stratum_of

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

by_scheduler = StoppingConfig.by_scheduler

__all__ = [
    "GuardVerdict",
    "GuardsConfig",
    "StoppingConfig",
    "Verdict",
    "by_scheduler",
    "compared_with",
    "judge_guards",
    "judge_standing",
    "parse_stopping",
    "stopping_class",
    "stratum_of",
]
