"""The contract every method fulfils: ZooModule, RoundModule, what a load reports, what a prediction is called."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from lightning import LightningModule
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torchmetrics import Metric

from zoo import checks
from zoo.base.compiled import own_names, plain_name, plain_names
from zoo.base.format import FORMAT
from zoo.base.meeting import check_size, data_of, fit_to, meet, meet_checkpoint, relabelled
from zoo.base.modes import evaluating, is_under, parameters_under, train_as_a_whole
from zoo.base.optim import average_gradients, decay_groups, every_step, trained_steps, warmup_cosine
from zoo.base.options import RANGES, check_options, documented
from zoo.base.ranks import gather, sum_over_ranks, world_size
from zoo.base.report import LoadReport, html_line
from zoo.base.resume import random_state, reopen_epoch, reopen_validation, set_random_state, validation_follows
from zoo.base.rounds import AssignOptimizer
from zoo.base.scores import RootMean, Scores
from zoo.base.strategy import RoundStrategy, broadcast_only
from zoo.errors import BadInput, InvalidConfig, NotFinite
from zoo.index.rules import is_plain
from zoo.index.tasks import RESULTS

if TYPE_CHECKING:
    from PIL import Image


__all__ = [
    "RESULTS",
    "ROLES",
    "AssignOptimizer",
    "LoadReport",
    "RootMean",
    "RoundModule",
    "Scores",
    "ZooModule",
    "average_gradients",
    "decay_groups",
    "every_step",
    "gather",
    "is_plain",
    "sum_over_ranks",
    "trained_steps",
    "warmup_cosine",
    "world_size",
]

ROLES = ("head", "elastic", "training", "private")


class ZooModule(LightningModule):
    """Base of all methods.

    A subclass has a constructor of plain JSON values, which this class saves as hyper-parameters, and implements
    `forward`, `training_step`, `evaluate_step`, `predict_step`, `make_batch`, `example_input` and
    `configure_optimizers`. `forward` takes what users have (pixels in [0, 1], physical units): normalisation is inside,
    so that exports and attacks see the same function.
    """

    parameter_roles: ClassVar[dict[str, str]] = {}
    """State-dict prefix -> role. `head`: depends on `num_classes`; `elastic`: takes its shape from the file;
    `training`: only in `.ckpt` files; `private`: like training, and never shared. See also `roles`."""

    task: str = ""
    """A key of `RESULTS`. A constructor may set it, where arguments decide."""

    monitor: tuple[str, str] = ("val/loss", "min")
    """Logged key that selects the best checkpoint, and `min` or `max`."""

    logged: ClassVar[tuple[str, ...]] = ()
    """Names it logs after `val/` and `test/` (wildcards allowed); empty: unknown. Claims are checked against them."""

    every_sample: bool = False
    """Whether each epoch must show every training sample exactly once: no partial batch dropped, no rank left short."""

    partial_backward: bool = False
    """Whether a backward pass may leave out trainable parameters (several optimisers, phases); DDP then allows it."""

    argument_ranges: ClassVar[dict[str, tuple[float, float]]] = {}
    """Least and largest value of constructor arguments that are numbers, beyond those of `RANGES`."""

    option_ranges: ClassVar[dict[str, tuple[float, float]]] = {}
    """Least and largest value of options of `predict_step` that are numbers."""

    report: LoadReport | None = None
    parent: str | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if {"predict", "predict_step"} & set(vars(cls)):
            cls.predict = documented(cls.predict, cls.predict_step)  # type: ignore[method-assign]

    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters(frame=inspect.currentframe())
        own = {k: v for k, v in self.hparams.items() if not k.startswith("_")}
        checks.arguments(type(self).__init__, own, RANGES | self.argument_ranges)
        if bad := [k for k, v in own.items() if not is_plain(v)]:
            raise InvalidConfig(
                f"{type(self).__name__}: the arguments {', '.join(bad)} are not plain JSON values; give names, "
                "numbers, lists or dicts, so that every checkpoint reloads without executing anything."
            )
        self._resume: dict[str, Any] = {}
        self._frozen: list[str] = []
        self._order: list[int] | None = None

    @property
    def class_names(self) -> list[str]:
        """Names of the classes in label order; numbers where none are known."""
        names, count = self.hparams.get("class_names"), self.hparams.get("num_classes") or 0
        return list(names) if names else [str(i) for i in range(count)]

    @class_names.setter
    def class_names(self, names: Sequence[str] | None) -> None:
        self.hparams["class_names"] = list(names) if names else None

    def setup(self, stage: str) -> None:
        """Get ready to train; a subclass that overrides this calls it.

        Class names and picture size become those of the data. What is in evaluation mode as a whole, as `zoo.load`
        returns it, trains in training mode; frozen parts do not. Plain DDP learns of `partial_backward`.

        Raises:
            InvalidConfig: if the data have another number of classes, or pictures that the network cannot take.
        """
        if stage == "fit":
            fit_to(self, data_of(self.trainer))
            train_as_a_whole(self)
            for metric in (m for m in self.modules() if isinstance(m, Metric)):
                metric.reset()  # an evaluation left inference tensors behind, which training may not change
        strategy = self.trainer.strategy
        if stage == "fit" and self.partial_backward and isinstance(strategy, DDPStrategy):
            strategy._ddp_kwargs.setdefault("find_unused_parameters", True)

    def _repr_html_(self) -> str:
        """What a notebook shows: one line. `print(model)` lists all layers."""
        return html_line(self)

    # What a subclass fills in -------------------------------------------------------------------------------------

    def example_input(self) -> tuple[Tensor, ...]:
        """Return tensors such that `forward(*example_input())` works; the first axis is the batch."""
        raise NotImplementedError(f"{type(self).__name__} must implement example_input()")

    def make_batch(self, items: Sequence[Any]) -> dict[str, Any]:
        """Convert user inputs (paths, pictures, arrays, tables) to a batch for `predict_step`.

        Raises:
            BadInput: naming the item, what was expected and what it is.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement make_batch()")

    def predict_step(self, *args: Any, **options: Any) -> dict[str, Any]:
        """Return batched results: each value has one entry per input, under the keys of `RESULTS`.

        A method declares `predict_step(self, batch, batch_idx=0, *, option=default, ...)`; `predict` takes its options.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement predict_step()")

    def show(self, inputs: Any, result: dict[str, Any]) -> Image.Image:
        """Draw one result of `predict` on its input, as a person would want to see it.

        A method that enlarges small pictures has an option `longest`, up to which longer side it does so.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement show()")

    def geo_features(self, inputs: Any, result: dict[str, Any]) -> list[dict[str, Any]]:
        """One result of `predict` as GeoJSON features, longitude and latitude in degrees."""
        raise NotImplementedError(f"{type(self).__name__} has no results on a map")

    def evaluate_step(self, stage: str, batch: dict[str, Any]) -> None:
        """Evaluate a batch of validation (`stage` is `val`) or test (`test`), in most methods by updating `scores`."""
        raise NotImplementedError(f"{type(self).__name__} must implement evaluate_step()")

    # What it gets -------------------------------------------------------------------------------------------------

    def validation_step(self, batch: dict[str, Any], batch_idx: int = 0) -> None:
        """Evaluate a batch of validation."""
        self.evaluate_step("val", relabelled(batch, self._order))

    def test_step(self, batch: dict[str, Any], batch_idx: int = 0) -> None:
        """Evaluate a batch of the test."""
        self.evaluate_step("test", relabelled(batch, self._order))

    def on_validation_epoch_end(self) -> None:
        """Log the scores of validation."""
        self.log_scores("val")

    def on_test_epoch_end(self) -> None:
        """Log the scores of the test."""
        self.log_scores("test")

    def log_scores(self, stage: str) -> dict[str, Any]:
        """Log all metrics of `scores` as `val/NAME` or `test/NAME`, and return their values by name."""
        scores = getattr(self, "scores", None)
        return scores.log(self, stage) if isinstance(scores, Scores) else {}

    def _reset_scores(self, stage: str) -> None:
        scores = getattr(self, "scores", None)
        if isinstance(scores, Scores):
            scores.reset(stage)  # an evaluation that was interrupted left values behind

    @property
    def init_args(self) -> dict[str, Any]:
        """Constructor arguments as plain values: with them and a state dict, the module can be built again."""
        names = inspect.signature(type(self).__init__).parameters
        return {k: v for k, v in self.hparams.items() if k in names}

    def split_inputs(self, inputs: Any) -> list[Any]:
        """Items of an argument of `predict`: a list or tuple holds several, anything else is one."""
        return list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]

    def predict(self, inputs: Any, *, batch_size: int = 16, **options: Any) -> list[dict[str, Any]]:
        """Predict for user inputs: a path, picture, array, tensor or table, or a list of them.

        Args:
            inputs: one input or a list.
            batch_size: inputs computed at once.
            options: passed to `predict_step` (thresholds and the like; see the method's own documentation).

        Returns:
            One dict per input, in the order given, with the keys of `RESULTS[task]`, in the user's own coordinates.

        Raises:
            BadInput: if an input or an option cannot be used.
        """
        if type(batch_size) is not int or batch_size < 1:
            raise BadInput(f"batch_size: expected a whole number of at least 1, got {batch_size!r}.")
        self.check_options(options)
        items = self.split_inputs(inputs)
        results: list[dict[str, Any]] = []
        with self.inference():
            for start in range(0, len(items), batch_size):
                part = items[start : start + batch_size]
                batch = self.transfer_batch_to_device(self.make_batch(part), self.device, 0)
                result = self.predict_step(batch, 0, **options)
                results += [{key: value[i] for key, value in result.items()} for i in range(len(part))]
        return results

    def check_options(self, options: dict[str, Any]) -> None:
        """Refuse options that `predict_step` does not have, and values of another type or outside of their range.

        Raises:
            BadInput: naming the option.
        """
        check_options(type(self).__name__, self.predict_step, options, self.option_ranges)

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Evaluation mode without gradients, and the former mode back afterwards."""
        with evaluating(self), torch.inference_mode():
            yield

    def freeze(self, *prefixes: str) -> ZooModule:
        """Stop training the parameters under these prefixes (all, if none is given), and their batch statistics.

        Raises:
            UnknownName: if a prefix matches no parameter.
        """
        for prefix in prefixes or ("",):
            for parameter in parameters_under(self, prefix):
                parameter.requires_grad_(False)
            self._frozen.append(prefix)
        return self.train(self.training)

    def unfreeze(self) -> ZooModule:
        """Make every parameter trainable again."""
        self._frozen.clear()
        for parameter in self.parameters():
            parameter.requires_grad_(True)
        return self.train(self.training)

    def train(self, mode: bool = True) -> ZooModule:
        """Set the mode; frozen parts stay in evaluation mode, so that their batch statistics do not drift."""
        super().train(mode)
        for name, module in self.named_modules():
            if any(is_under(name, prefix) for prefix in getattr(self, "_frozen", ())):
                module.training = False
        return self

    def roles(self) -> dict[str, str]:
        """State-dict prefix -> role; a subclass whose parts depend on its arguments overrides this."""
        return dict(self.parameter_roles)

    def role_of(self, key: str) -> str | None:
        """The declared role of a state-dict key, by its longest matching prefix."""
        roles, key = self.roles(), plain_name(key)
        prefixes = [prefix for prefix in roles if is_under(key, prefix)]
        return roles[max(prefixes, key=len)] if prefixes else None

    def published_state(self) -> dict[str, Tensor]:
        """The state dict without what only training needs: what safetensors files hold."""
        state = plain_names(self.state_dict())
        return {k: v for k, v in state.items() if self.role_of(k) not in ("training", "private")}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As `nn.Module` does; names with and without what `torch.compile` adds stand for the same."""
        return super().load_state_dict(own_names(state_dict, self), *args, **kwargs)

    def export_program(self, path: str | Path) -> Path:
        """Write `forward` as a `torch.export` program with a dynamic batch size; values are scaled inside it."""
        from zoo.base.export import export_program

        return export_program(self, path)

    def export_onnx(self, path: str | Path) -> Path:
        """Write `forward` as ONNX with a dynamic batch size (needs the extra `export`)."""
        from zoo.base.export import export_onnx

        return export_onnx(self, path)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Let elastic buffers take their shape from what is loaded; everything else stays strict."""
        for key, buffer in self.named_buffers():
            value = state_dict.get(prefix + key)
            if self.role_of(key) == "elastic" and value is not None and value.shape != buffer.shape:
                # the same tensor object gets new storage, so that optimisers which hold it see the new values
                buffer.data = torch.empty_like(value, dtype=buffer.dtype, device=buffer.device)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def log_image(self, key: str, image: Tensor) -> None:
        """Hand a picture to whatever logger there is; without one that takes pictures, a PNG in the run's folder.

        Args:
            key: such as `val/boxes`.
            image: uint8 or float in [0, 1], (3, H, W).
        """
        from zoo.base.picture import hand_over

        hand_over(self, key, image)

    # Checkpoints and exact resume ---------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the index id and each rank's random state and collected values."""
        from zoo.index import id_of

        reopen_validation(checkpoint, self._trainer is not None and validation_follows(self.trainer))
        reopen_epoch(checkpoint)
        checkpoint["state_dict"] = plain_names(checkpoint.get("state_dict", {}))
        mine = {"rng": random_state(), "collected": self.collected_state()}
        checkpoint["zoo"] = {
            "format": FORMAT,
            "id": id_of(type(self)),
            "parent": self.parent,
            "ranks": self.gather(mine),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the random state until training starts; everything before it may draw numbers."""
        saved = checkpoint.get("zoo") or {}
        self.parent = saved.get("parent")
        ranks = saved.get("ranks") or []
        rank = self.global_rank if self._trainer is not None else 0
        self._resume = ranks[rank] if rank < len(ranks) else {}
        if self._resume:
            self.load_collected_state(self._resume["collected"])
        if self._trainer is not None:
            meet_checkpoint(self, checkpoint)

    def on_train_start(self) -> None:
        """Restore the loader's position and the random state of the checkpoint."""
        # A schedule that asks for the number of steps makes Lightning build the loader before it has read where to go
        # on, and it then forgets to tell the loader. Doing so here is early enough: our loaders start lazily.
        self.trainer.fit_loop._load_combined_loader_states()
        self._restore()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Restore it once more in the middle of an epoch, whose start drew numbers a second time."""
        if self._resume:
            if batch_idx > 0:
                self._restore()
            self._resume = {}

    def on_validation_start(self) -> None:
        """Forget old scores, and restore the random state for a validation with which a resumed run begins.

        A subclass that overrides this calls it.
        """
        self._meet_data()
        self._reset_scores("val")
        if self._resume and self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self._restore()
            # Lightning leaves these as they were, one batch ahead, and would resume the same validation once more
            self.trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset_on_restart()

    def on_test_start(self) -> None:
        """Forget old scores; a subclass that overrides this calls it."""
        self._meet_data()
        self._reset_scores("test")

    def on_predict_start(self) -> None:
        """Compare with the data; a subclass that overrides this calls it."""
        check_size(self.hparams, data_of(self.trainer))

    def _meet_data(self) -> None:
        """Compare with the data to be scored on, by the arguments of a checkpoint that was read meanwhile."""
        self._order = None if self.trainer.state.fn == "fit" else meet(self, data_of(self.trainer))

    def on_validation_end(self) -> None:
        """Restore the random state after it; a subclass that overrides this calls it."""
        if self._resume and self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self._resume["rng"] = random_state()

    def _restore(self) -> None:
        if self._resume:
            set_random_state(self._resume["rng"])

    def collected_state(self) -> dict[str, Any]:
        """What was gathered in an unfinished round (tensors and plain values); none for gradient methods."""
        return {}

    def load_collected_state(self, state: dict[str, Any]) -> None:
        """Take back what `collected_state` returned."""

    # Ranks --------------------------------------------------------------------------------------------------------

    def gather(self, value: Any) -> list[Any]:
        """`value` of every rank, on every rank. All ranks must call it."""
        return gather(value)

    def sum_over_ranks(self, value: Tensor) -> Tensor:
        """Sum of `value` over the ranks. All ranks must call it."""
        return sum_over_ranks(value)


class RoundModule(ZooModule):
    """Base of methods that update once per pass over the data: federated rounds, ridge, clustering, index building.

    One epoch is one round. `collect` sees every batch; `update` returns the new values. The update runs inside the last
    training step, so validation sees it and checkpoints hold it.
    """

    every_sample: bool = True
    rank_invariant: bool = True
    """Whether a round gives the same for any number of ranks; not so where each rank is a client by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def collect(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Accumulate one batch on this rank."""
        raise NotImplementedError(f"{type(self).__name__} must implement collect()")

    def update(self) -> dict[str, Tensor]:
        """Compute the round's new values, keyed by state-dict name, equal on all ranks; forget what was collected."""
        raise NotImplementedError(f"{type(self).__name__} must implement update()")

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Collect, and update in the last step of the epoch."""
        with torch.no_grad():
            self.collect(batch, batch_idx)
            if self.trainer.is_last_batch:
                values = self._updated()
                own: Any = self.optimizers()
                optimizer = own[0] if isinstance(own, list) else own  # others belong to phases that follow gradients
                optimizer.optimizer.assign(values)
                optimizer.step()

    def _updated(self) -> dict[str, Tensor]:
        """The new values; callbacks with `on_step_refused` hear of it if a rule refuses to compute them.

        (Lightning's `on_exception` is not called in forked ranks.)
        """
        try:
            return self.update()
        except NotFinite as error:
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
                if hasattr(callback, "on_step_refused"):
                    callback.on_step_refused(self.trainer, self, error)
            raise

    def configure_optimizers(self) -> AssignOptimizer:
        """Copy computed values instead of following gradients."""
        return AssignOptimizer(self)

    def setup(self, stage: str) -> None:
        """Keep DDP from wrapping the module: there are no gradients to reduce, and it refuses modules without any.

        A method some of whose variants follow gradients gives these `automatic_optimization`, and DDP wraps them.
        """
        super().setup(stage)
        strategy = self.trainer.strategy
        if self.automatic_optimization or isinstance(strategy, RoundStrategy):
            return
        if stage == "fit" and isinstance(strategy, DDPStrategy):
            strategy.configure_ddp = partial(broadcast_only, strategy)  # type: ignore[method-assign]
