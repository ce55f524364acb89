"""Aggregation rules: one implementation for one process, the ranks of a Lightning strategy, and Flower.

    rule = create_rule("fedavg")
    state = rule.init_state(global_sd)
    global_sd, state, metrics = rule(global_sd, updates, RoundContext(0, seed, cohort, total), state)

`RULES` lists them; `register_rule` adds one.
"""

from __future__ import annotations

from zoo.federated import _rules_columns, _rules_ewwa, _rules_gram, _rules_mean  # noqa: F401  (they register)
from zoo.federated._rules_base import RULES, Rule, create_rule, register_preset, register_rule
from zoo.federated._rules_updates import LOCAL, ClientUpdate, Comm, RoundContext, StateDict

__all__ = [
    "LOCAL",
    "RULES",
    "ClientUpdate",
    "Comm",
    "RoundContext",
    "Rule",
    "StateDict",
    "create_rule",
    "register_preset",
    "register_rule",
]
