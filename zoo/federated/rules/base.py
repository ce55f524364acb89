"""The base of aggregation rules, and their registry."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from zoo.errors import BadInput, UnknownName, nearest
from zoo.federated.rules.cohort import Cohort
from zoo.federated.rules.updates import LOCAL, ClientUpdate, Comm, RoundContext, StateDict
from zoo.index.registers import import_registering, registered_names

__all__ = ["RULES", "Rule", "create_rule", "register_preset", "register_rule", "rule_names"]


class Rule:
    """Turns the updates of a round into the next global model.

    Pure: neither arguments nor the global random state change, and results share no memory with arguments. Updates are
    sorted by client before any arithmetic, which is in float64. Entries that no client sent keep their value, entries
    that some sent are combined over these, integers (counters of batch normalisation) by their maximum.

    A subclass has a `name`, plain keyword options, and `combine`; see `zoo.federated.rules` for those there are.

    Args:
        non_finite: what to do with a client whose update holds NaN or infinities: "stop" (an error that names it) or
            "drop" (go on without it; the metrics name it).
    """

    name: ClassVar[str] = ""
    linear: ClassVar[bool] = False
    """Whether the result is a sum of a_i * w_i with one number a_i per client, given by `weights`."""
    order_sensitive: bool = False
    """Whether another numbering of the clients changes the result beyond rounding."""
    idempotent: bool = True
    """Whether equal updates of all clients, with a fresh state, return that update."""
    couples_blocks: bool = False
    """Whether entries that different clients sent influence each other."""
    draws: bool = False
    """Whether it draws random numbers, which belong to (seed, round), to the order of clients, and to chunks."""
    needs_extras: ClassVar[tuple[str, ...]] = ()
    """Keys of `ClientUpdate.extras` that `weights` reads; these must be small, every process gets them."""

    def __init__(self, *, non_finite: str = "stop") -> None:
        if non_finite not in ("stop", "drop"):
            raise BadInput(f"non_finite must be 'stop' or 'drop', got {non_finite!r}.")
        self.non_finite = non_finite

    def init_state(self, global_sd: Mapping[str, Tensor]) -> dict[str, Any]:
        """State before the first round: a flat dict of tensors and numbers."""
        return {}

    def weights(self, updates: Sequence[ClientUpdate], ctx: RoundContext, state: Mapping[str, Any]) -> list[float]:
        """Share of each client in a mean, summing to 1; rules that know none raise.

        Args:
            updates: of all clients of the round, sorted by client, without their `state`.
            ctx: the round.
            state: of the rule.
        """
        raise NotImplementedError(f"The rule {self.name!r} has no weights per client.")

    def check(self, clients: int) -> None:
        """Refuse a round with too few clients.

        Raises:
            BadInput: saying how many this rule needs.
        """

    def combine(
        self, global_sd: Mapping[str, Tensor], cohort: Cohort, ctx: RoundContext, state: dict[str, Any]
    ) -> tuple[StateDict, dict[str, float]]:
        """Combine the floating-point entries; called with at least one client.

        Args:
            global_sd: the current global model.
            cohort: the round's updates, checked.
            ctx: the round.
            state: a copy of the rule's state, whose entries may be replaced (never changed in place).

        Returns:
            New tensors by name, and metrics.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement combine()")

    def __call__(
        self,
        global_sd: Mapping[str, Tensor],
        updates: Sequence[ClientUpdate],
        ctx: RoundContext,
        state: Mapping[str, Any],
        comm: Comm = LOCAL,
    ) -> tuple[StateDict, dict[str, Any], dict[str, float]]:
        """Aggregate one round.

        Args:
            global_sd: the current global model, the same in every process.
            updates: of the clients of this process; may be empty.
            ctx: the round.
            state: what the former round returned, or `init_state`; the same in every process.
            comm: `LOCAL`, or `RanksComm` where clients are spread over processes.

        Returns:
            The new global model with the keys of the old one, the new state, and metrics: `clients` that took part,
            their `examples`, `dropped` clients (each also as `dropped/<client>`), and those of the rule. Equal in
            every process.

        Raises:
            BadInput: if an update or the number of clients is unusable; the message names client and entry.
            KeyMismatch: if an update holds an entry that the global model lacks.
            ShapeMismatch: if an entry has another shape.
        """
        cohort = Cohort.of(global_sd, updates, comm, drop=self.non_finite == "drop", extras=self.needs_extras)
        new, mine = {key: value.detach().clone() for key, value in cohort.untouched(global_sd).items()}, dict(state)
        metrics = cohort.metrics()
        if cohort.headers:
            for block in cohort.blocks:
                self.check(len(block.members))
            combined, own = self.combine(global_sd, cohort, ctx, mine)
            new |= combined | cohort.integers(global_sd)
            metrics |= own
        return {key: new[key] for key in global_sd}, mine, metrics

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={getattr(self, k)!r}" for k in _options_of(type(self)) if hasattr(self, k))
        return f"{type(self).__name__}({shown})"


RULES: dict[str, Callable[..., Rule]] = {}
"""Rules by name, as far as they are imported. `register_rule` adds to it."""

_Made = TypeVar("_Made", bound=Callable[..., Rule])


def register_rule(name: str) -> Callable[[_Made], _Made]:
    """Decorator: add a rule, or a function that builds one, under a name.

    Raises:
        BadInput: if the name is taken.
    """

    def add(made: _Made) -> _Made:
        if name in RULES and RULES[name] is not made:
            raise BadInput(f"There is a rule {name!r} already.")
        RULES[name] = made
        return made

    return add


def register_preset(name: str, made: type[Rule], **fixed: Any) -> None:
    """Add a rule with other defaults under a name of its own.

    Raises:
        BadInput: if the name is taken.
    """
    register_rule(name)(partial(made, **fixed))


def rule_names() -> list[str]:
    """Names of all rules, sorted: those that are imported, and those that methods of the index bring."""
    return sorted({*RULES, *registered_names("rules")})


def create_rule(name: str, **options: Any) -> Rule:
    """Build a rule by name.

    Args:
        name: one of `rule_names`. The method that brings the rule is imported if it has not been.
        options: of the rule's constructor.

    Raises:
        UnknownName: if there is no such rule; the message holds the nearest ones.
        BadInput: if there is no such option, or its value is refused.
    """
    import_registering("rules", name, RULES)
    if name not in RULES:
        known = rule_names()
        raise UnknownName(f"There is no rule {name!r}.{nearest(name, known)} Rules: {', '.join(known)}.")
    known = _options_of(RULES[name])
    if unknown := [option for option in options if option not in known]:
        raise BadInput(
            f"The rule {name!r} has no option {unknown[0]!r}.{nearest(unknown[0], known)} Options: {', '.join(known)}."
        )
    return RULES[name](**options)


def _options_of(made: Any) -> list[str]:
    """Keyword options, through `**options` up to the base class."""
    made = made.func if isinstance(made, partial) else made
    options: list[str] = []
    for builder in made.__mro__ if isinstance(made, type) else (made,):
        if "__init__" not in vars(builder) and isinstance(builder, type):
            continue
        parameters = inspect.signature(vars(builder)["__init__"] if isinstance(builder, type) else builder).parameters
        options += [p for p in parameters if p not in ("self", "options") and p not in options]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            break
    return options
