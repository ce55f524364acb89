"""What clients do between receiving the global model and answering.

Client k starts from the weights w_t it received and takes local steps on its own samples:

    plain     minimise L_k(w)                                                            McMahan et al. 2017
    fedprox   minimise L_k(w) + mu/2 ||w - w_t||^2; partial work of slow clients counts   Li et al. 2020
    moon      minimise L_k(w) + mu l_con,                                                 Li, He, Song 2021
              l_con = -log(e^(cos(z, z_g) / T) / (e^(cos(z, z_g) / T) + e^(cos(z, z_p) / T))),
              z, z_g, z_p: representations of the trained, the global and the client's previous model

`ClientAlgorithm.local_fit` depends on its arguments alone, so that one process, ranks and other machines, which all
call it, get equal bits. Algorithms are stateless: what a client must remember is a dict that the caller keeps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import checks
from zoo.errors import BadInput, InvalidConfig, UnknownName, nearest
from zoo.federated.clients.scope import ParamScope
from zoo.federated.clients.training import LocalTraining, seeded
from zoo.federated.clients.transforms import TRANSFORMS, UpdateTransform, create_transform, register_transform
from zoo.federated.rules import ClientUpdate, RoundContext, StateDict
from zoo.index.registers import import_registering, registered_names
from zoo.streams import hash64

if TYPE_CHECKING:
    from datamodules.clients import ClientTask

__all__ = [
    "CLIENTS",
    "TRANSFORMS",
    "ClientAlgorithm",
    "FedProx",
    "LocalModel",
    "LocalTraining",
    "Moon",
    "ParamScope",
    "UpdateTransform",
    "Work",
    "create_client",
    "create_transform",
    "register_client",
    "register_transform",
    "seeded",
    "train_client",
    "working",
]

_TRAIN, _TRANSFORM = 1, 2  # names of random streams, next to (seed, round, client)


class LocalModel(Protocol):
    """What local training needs to know of a method; `FederatedLearner` is one."""

    local: LocalTraining
    scope: ParamScope
    transforms: Sequence[UpdateTransform]

    def replica(self, name: str = "client") -> nn.Module:
        """A network of the method's kind to work with; the same object for the same name."""

    def local_step(self, network: nn.Module, batch: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Loss of a batch, and the representation (n, d) that contrastive terms compare, if there is one."""

    def client_batch(self, client: int, batch: dict[str, Any]) -> dict[str, Any]:
        """A client's batch on the device, after whatever happens to this client's data."""

    def group_of(self, client: int) -> str | None:
        """The group whose entries the client shares."""


@dataclass
class Work:
    """One client's local training, while it runs.

    Attributes:
        module: the method.
        task: client, share of the work.
        network: the weights in training.
        trained: names of the parameters in training.
        start: w_t of these, in the same order.
        parameters: w of these.
        state: what the client remembers of its former rounds.
        ctx: the round.
        notes: of the algorithm.
    """

    module: LocalModel
    task: ClientTask
    network: nn.Module
    trained: list[str]
    start: list[Tensor]
    parameters: list[Tensor]
    state: Mapping[str, Any]
    ctx: RoundContext
    notes: dict[str, Any] = field(default_factory=dict)


class ClientAlgorithm:
    """Plain local training, and the base of others, which add to the loss, to the gradient or to what is remembered."""

    name: ClassVar[str] = "plain"
    partial_work: ClassVar[bool] = False
    """Whether the update of a client that did only part of its steps is used; else such a client is left out."""

    def begin(self, work: Work) -> None:
        """Prepare, before the first step."""

    def loss(self, work: Work, batch: dict[str, Any]) -> Tensor:
        """Loss of a batch."""
        return work.module.local_step(work.network, batch)[0]

    def correct(self, work: Work) -> None:
        """Change the gradients before a step."""

    def remember(self, work: Work) -> dict[str, Any]:
        """Entries of the client's state for its next round."""
        return {}

    def local_fit(
        self,
        module: LocalModel,
        task: ClientTask,
        loader: Any,
        num_examples: int,
        global_sd: Mapping[str, Tensor],
        state: Mapping[str, Any],
        ctx: RoundContext,
    ) -> tuple[ClientUpdate, dict[str, Any]]:
        """Train one client in one round.

        Args:
            module: the method.
            task: which client, and the share of its steps that it gets done.
            loader: all batches of the round, a sized iterable.
            num_examples: of the client.
            global_sd: the network's state dict as the server sends it.
            state: what `local_fit` returned for this client before; empty at first.
            ctx: the round.

        Returns:
            The update (entries that were trained and may be shared), and the client's state.

        Raises:
            BadInput: if the client has no data, or a batch of one where batch normalisation needs more.
        """
        if not len(loader):
            raise BadInput(f"client {task.client} has no data: give each client at least one sample (min_client_size).")
        steps = max(1, math.ceil(task.share_of_work * len(loader)))
        work = self._start(module, task, global_sd, state, ctx)
        optimizer = module.local.optimizer_of(work.parameters, ctx.round, state.get("optimizer"))
        device = work.parameters[0].device
        with torch.enable_grad(), seeded(hash64(ctx.seed, ctx.round, task.client, _TRAIN), device):
            self.begin(work)
            total = torch.zeros((), device=device)
            for batch in islice(loader, steps):
                optimizer.zero_grad()
                loss = self._loss(work, module.client_batch(task.client, batch))
                loss.backward()  # type: ignore[no-untyped-call]
                self.correct(work)
                optimizer.step()
                total += loss.detach()
        update = ClientUpdate(
            task.client,
            num_examples,
            self._answer(work, global_sd),
            {"loss": float(total) / steps, "steps": float(steps)},
        )
        return update, self._state_after(work, optimizer)

    def _loss(self, work: Work, batch: dict[str, Any]) -> Tensor:
        try:
            return self.loss(work, batch)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise BadInput(
                f"client {work.task.client} has a batch of one sample, which batch normalisation cannot use: leave "
                "such batches out (--data.drop_last true), or take a network with group normalisation (-gn)."
            ) from error

    def _start(
        self,
        module: LocalModel,
        task: ClientTask,
        global_sd: Mapping[str, Tensor],
        state: Mapping[str, Any],
        ctx: RoundContext,
    ) -> Work:
        network = module.replica()
        network.load_state_dict({**global_sd, **state.get("local", {})})
        mine = set(self._shared(module, task, global_sd)) | set(module.scope.local(global_sd))
        named = {k: p for k, p in network.named_parameters() if p.requires_grad and k in mine}
        if not named:
            raise InvalidConfig(f"client {task.client}: nothing to train, every parameter is frozen or out of scope.")
        start = [p.detach().clone() for p in named.values()]
        return Work(module, task, network, list(named), start, list(named.values()), state, ctx)

    @staticmethod
    def _shared(module: LocalModel, task: ClientTask, global_sd: Mapping[str, Tensor]) -> list[str]:
        return module.scope.shared(global_sd, module.group_of(task.client))

    def _answer(self, work: Work, global_sd: Mapping[str, Tensor]) -> StateDict:
        """What the client sends: trained parameters and buffers that it may share, after the transforms."""
        module, task, ctx = work.module, work.task, work.ctx
        frozen = {k for k, _ in work.network.named_parameters()} - set(work.trained)
        weights = work.network.state_dict()
        keys = [k for k in self._shared(module, task, global_sd) if k not in frozen]
        sent = {k: weights[k].detach().to("cpu", copy=True).contiguous() for k in keys}
        if module.transforms:
            floats = [k for k in sent if sent[k].is_floating_point()]
            generator = torch.Generator().manual_seed(hash64(ctx.seed, ctx.round, task.client, _TRANSFORM))
            delta = {k: sent[k] - global_sd[k].cpu() for k in floats}
            for transform in module.transforms:
                delta = transform(delta, generator)
            sent |= {k: global_sd[k].cpu() + delta[k] for k in floats}
        return sent

    def _state_after(self, work: Work, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        after = {**work.state, **self.remember(work)}
        if work.module.local.policy == "persistent":
            after["optimizer"] = _host(optimizer.state_dict())
        weights = work.network.state_dict()
        if local := {k: _host(weights[k]) for k in work.module.scope.local(weights)}:
            after["local"] = local
        return after


class FedProx(ClientAlgorithm):
    """A proximal term keeps clients near the weights they received, and partial work is accepted.

    Args:
        mu: weight of the term, at least 0. The term covers trained parameters only, and is not divided by anything.
    """

    name = "fedprox"
    partial_work = True

    def __init__(self, mu: float = 0.01) -> None:
        checks.at_least("mu", mu, 0)
        self.mu = mu

    def penalty(self, work: Work) -> Tensor:
        """`mu/2 ||w - w_t||^2`, whose gradient `correct` adds."""
        apart = [((p - start) ** 2).sum() for p, start in zip(work.parameters, work.start, strict=True)]
        return 0.5 * self.mu * torch.stack(apart).sum()

    @torch.no_grad()
    def correct(self, work: Work) -> None:
        """Add `mu (w - w_t)` to the gradient."""
        if not self.mu:
            return  # adding zeros could still change the sign of a zero
        used = [(p, p.grad, s) for p, s in zip(work.parameters, work.start, strict=True) if p.grad is not None]
        apart = torch._foreach_sub([p for p, _, _ in used], [s for _, _, s in used])
        torch._foreach_add_([g for _, g, _ in used], apart, alpha=self.mu)


class Moon(ClientAlgorithm):
    """A contrastive term pulls the representation to that of the global model, away from the client's previous one.

    In a client's first round there is no previous model and the term would be constant: it is left out.

    Args:
        mu: weight of the term, at least 0.
        temperature: T, above 0.
    """

    name = "moon"

    def __init__(self, mu: float = 1.0, temperature: float = 0.5) -> None:
        checks.at_least("mu", mu, 0)
        checks.above("temperature", temperature, 0)
        self.mu, self.temperature = mu, temperature

    def begin(self, work: Work) -> None:
        """Set up the two frozen models."""
        before = work.state.get("previous")
        if before is None or not self.mu:
            return
        for name, weights in (("global", work.network.state_dict()), ("previous", before)):
            frozen = work.module.replica(name)
            frozen.load_state_dict(weights)
            work.notes[name] = frozen.eval().requires_grad_(False)

    def loss(self, work: Work, batch: dict[str, Any]) -> Tensor:
        """The method's loss plus the contrastive term."""
        loss, z = work.module.local_step(work.network, batch)
        if z is None:
            raise InvalidConfig(f"moon: {type(work.module).__name__} gives no representation to compare.")
        if not work.notes:
            return loss
        with torch.no_grad():
            others = [work.module.local_step(work.notes[name], batch)[1] for name in ("global", "previous")]
        assert others[0] is not None
        assert others[1] is not None
        return loss + self.mu * contrast(z, others[0], others[1], self.temperature)

    def remember(self, work: Work) -> dict[str, Any]:
        """Keep the model as the client has trained it."""
        return {"previous": _host(work.network.state_dict())}


def contrast(z: Tensor, z_global: Tensor, z_previous: Tensor, temperature: float) -> Tensor:
    """Model-contrastive loss, as a two-way cross-entropy, which cannot overflow.

    Args:
        z: (n, d) representations of the model in training.
        z_global: (n, d) of the global model.
        z_previous: (n, d) of the client's previous model.
        temperature: T.

    Returns:
        Mean over the batch.
    """
    near, far = F.cosine_similarity(z, z_global), F.cosine_similarity(z, z_previous)
    return F.cross_entropy(
        torch.stack([near, far], 1) / temperature, torch.zeros(len(z), dtype=torch.long).to(z.device)
    )


def _host(value: Any) -> Any:
    """A copy in host memory, nested as the original."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {k: _host(v) for k, v in value.items()}
    return [_host(v) for v in value] if isinstance(value, (list, tuple)) else value


CLIENTS: dict[str, Callable[..., ClientAlgorithm]] = {}
"""Client algorithms by name, as far as they are imported. `register_client` adds to it."""

_Made = TypeVar("_Made", bound=Callable[..., ClientAlgorithm])


def register_client(name: str) -> Callable[[_Made], _Made]:
    """Decorator: add a client algorithm under a name."""

    def add(made: _Made) -> _Made:
        if CLIENTS.setdefault(name, made) is not made:
            raise BadInput(f"There is a client algorithm {name!r} already.")
        return made

    return add


for _kind in (ClientAlgorithm, FedProx, Moon):
    register_client(_kind.name)(_kind)


def create_client(name: str, **options: Any) -> ClientAlgorithm:
    """Build a client algorithm by name; a method of the index that brings it is imported if it has not been.

    Raises:
        UnknownName: with the nearest names.
        BadInput: for options it does not have.
    """
    import_registering("clients", name, CLIENTS)
    if name not in CLIENTS:
        known = sorted({*CLIENTS, *registered_names("clients")})
        raise UnknownName(f"There is no client algorithm {name!r}.{nearest(name, known)} Known: {', '.join(known)}.")
    try:
        return CLIENTS[name](**options)
    except TypeError as error:
        raise BadInput(f"client algorithm {name}: {error}.") from error


def train_client(
    module: Any,
    data: Any,
    task: ClientTask,
    global_sd: Mapping[str, Tensor],
    state: Mapping[str, Any],
    ctx: RoundContext,
) -> tuple[ClientUpdate, dict[str, Any]]:
    """Train one client of a data module: what every executor calls.

    Args:
        module: a `FederatedLearner`.
        data: a `ClientsDataModule`, or what looks like one.
        task: the client's task in the round.
        global_sd: the network's state dict as the server sends it.
        state: what this returned for the client before.
        ctx: the round.
    """
    loader = data.client_loader(task.client, ctx.round, module.local.epochs)
    size = data.client_size(task.client)
    return module.client.local_fit(module, task, loader, size, global_sd, state, ctx)


def working(tasks: Sequence[ClientTask], client: ClientAlgorithm) -> Iterator[ClientTask]:
    """Tasks whose result will count: the link is up, and all work is done or partial work is accepted."""
    return (t for t in tasks if t.link_up and (t.share_of_work >= 1 or client.partial_work))
