"""Aggregation rules: one implementation for one process, the ranks of a Lightning strategy, and Flower.

    rule = create_rule("fedavg")
    state = rule.init_state(global_sd)
    global_sd, state, metrics = rule(global_sd, updates, RoundContext(0, seed, cohort, total), state)

`rule_names` lists them; `register_rule` adds one. A method that brings a rule names it under `registers` in the index,
so that the name is enough in any process.
"""

from __future__ import annotations

from zoo.federated.rules import columns as _columns  # noqa: F401 (it registers its rules)
from zoo.federated.rules import gram as _gram  # noqa: F401 (it registers its rules)
from zoo.federated.rules import mean as _mean  # noqa: F401 (it registers its rules)
from zoo.federated.rules.base import RULES, Rule, create_rule, register_preset, register_rule, rule_names
from zoo.federated.rules.cohort import Block, Chunk, Cohort
from zoo.federated.rules.updates import LOCAL, ClientUpdate, Comm, RoundContext, StateDict

__all__ = [
    "LOCAL",
    "RULES",
    "Block",
    "Chunk",
    "ClientUpdate",
    "Cohort",
    "Comm",
    "RoundContext",
    "Rule",
    "StateDict",
    "create_rule",
    "register_preset",
    "register_rule",
    "rule_names",
]
