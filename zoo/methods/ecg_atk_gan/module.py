"""The classifier and its opponent as a Lightning module; the paper and equations stand in `zoo.methods.ecg_atk_gan`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import BinaryAUROC, MulticlassAccuracy, MulticlassF1Score

from zoo import checks
from zoo.base.modes import frozen_parameters
from zoo.base.other_network import FrozenNetwork, OtherNetworks
from zoo.base.ranks import copy_first_rank
from zoo.base.scores import Scores
from zoo.base.series import SeriesModel
from zoo.errors import BadInput
from zoo.inputs.series import make_series_batch, split_series
from zoo.methods.ecg_atk_gan.crafting import ATTACKS, craft
from zoo.methods.ecg_atk_gan.losses import discriminator_loss, generator_loss
from zoo.methods.ecg_atk_gan.network import Discriminator, Generator, smooth_latent, statistics_at_rest
from zoo.nn.attacks import Model, attack_mode, pgd, undetected

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["ECGATKGAN", "MIXES"]

MIXES = ("static", "online", "none")
SCALINGS = ("record", "beat")


class ECGATKGAN(OtherNetworks, SeriesModel):
    """A classifier of heartbeats with a head that tells attacked ones, trained against a generator.

    Args:
        num_classes: K.
        class_names: K names; numbers if None.
        channels: C, leads.
        length: L, points of a beat, whose R peak is at L // 2.
        scaling: how beats are brought to [0, 1]: by minimum and range of their `record`, or each `beat` by its own.
        mix: attacked beats in training: `static` ones of the surrogate, `online` ones of the network as it stands, or
            `none`.
        gan: train against a generator.
        surrogate: trained classifier on which static beats are attacked: `id:tag`, a folder, a .ckpt, `hf://...`. None:
            this network's own trunk and class head, after `plain_epochs` epochs.
        plain_epochs: epochs of training on clean beats alone, before a mix of the network's own.
        attacks: of the mix, names of `ATTACKS`.
        eps: their radius, as a share of the range that beats are scaled by: in mV, eps times `span`.
        cw_eps: radius of C&W.
        attack_share: share of a batch that is attacked.
        zero_latent: z = 0, as the authors' code draws it, in place of smooth noise.
        d_weights: of real or generated, attack and class in D's loss.
        g_weights: of real or generated, attack and class in G's loss.
        width: filters of the first stage of D and of G; 32 in the paper.
        dropout: of D.
        lr: of Adam, of both.
        beta1: of Adam.
        test_eps: radius of the attacks of a test.
        test_steps: their steps, of size `test_eps` / 10.
    """

    # a discriminator that attacks nothing else is needed to predict; G is larger than D and only augments
    argument_ranges: ClassVar[dict[str, tuple[float, float]]] = {
        "num_classes": (2, 100_000),
        "channels": (1, 1_000),
        "length": (16, 1_000_000),
        "width": (1, 1_000),
        "dropout": (0, 1),
        "beta1": (0, 0.999_999),
        "lr": (0, 1e6),
    }
    """What is no beat, or fits no machine."""

    parameter_roles: ClassVar[dict[str, str]] = {"discriminator.head": "head", "generator": "training"}
    references = ("surrogate",)
    partial_backward = True
    monitor = ("val/f1", "max")
    logged: ClassVar[tuple[str, ...]] = ("loss", "accuracy", "f1", "robust_adaptive", "auroc_adaptive")

    def __init__(
        self,
        num_classes: int = 4,
        class_names: list[str] | None = None,
        channels: int = 1,
        length: int = 280,
        scaling: str = "record",
        mix: str = "static",
        gan: bool = True,
        surrogate: str | None = None,
        plain_epochs: int = 2,
        attacks: Sequence[str] = ("fgsm", "bim", "pgd", "cw"),
        eps: float = 0.01,
        cw_eps: float = 0.1,
        attack_share: float = 0.5,
        zero_latent: bool = False,
        d_weights: Sequence[float] = (1.0, 1.0, 1.0),
        g_weights: Sequence[float] = (1.0, 10.0, 10.0),
        width: int = 32,
        dropout: float = 0.2,
        lr: float = 1e-4,
        beta1: float = 0.5,
        test_eps: float = 0.05,
        test_steps: int = 20,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise BadInput(f"num_classes: a classifier of beats has at least 2 classes, got {num_classes}.")
        self.automatic_optimization = False
        for name, value, allowed in (("scaling", scaling, SCALINGS), ("mix", mix, MIXES)):
            checks.one_of(name, value, allowed)
        if not attacks:
            raise BadInput("attacks: expected at least one; without any, set mix to none.")
        for kind in attacks:
            checks.one_of("attacks", kind, ATTACKS)
        for name, radius in (("eps", eps), ("cw_eps", cw_eps), ("test_eps", test_eps)):
            if not 0 < radius <= 1:
                raise BadInput(f"{name}: expected a share of the beats' range in (0, 1], not mV; got {radius:g}.")
        for name, values in (("d_weights", d_weights), ("g_weights", g_weights)):
            if len(values) != 3 or min(values) < 0:
                raise BadInput(f"{name}: expected three numbers of at least 0, got {list(values)}.")
        for name, number, least in (
            ("length", length, 16),
            ("plain_epochs", plain_epochs, 0),
            ("test_steps", test_steps, 1),
        ):
            checks.at_least(name, number, least)
        checks.share_of_one("attack_share", attack_share)
        self.discriminator = Discriminator(num_classes, channels, length, width, dropout)
        self.generator = Generator(num_classes, channels, length, width) if gan else None
        for part, used in ((self.discriminator.real, gan), (self.discriminator.attack, mix != "none")):
            part.requires_grad_(used)
        self._plain: FrozenNetwork | None = None  # a copy of D, on which beats are attacked; no part of the module
        self._crafted: dict[int, Tensor] = {}
        self._generates = False

    # Networks -----------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """Class logits (N, K) of beats (N, C, L) in [0, 1]."""
        return self.discriminator.classify(x)

    def forward_all(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Real score (N, 1) in [0, 1], logits of no attack and attack (N, 2), class logits (N, K)."""
        score, attack, classes = self.discriminator(x)
        return torch.sigmoid(score), attack, classes

    def classes_and_attack(self, x: Tensor) -> Tensor:
        """Class logits and those of no attack and attack, side by side (N, K + 2), for attacks on both."""
        _, attack, classes = self.discriminator(x)
        return torch.cat([classes, attack], 1)

    def generate(self, x: Tensor, y: Tensor, z: Tensor | None = None) -> Tensor:
        """Beats (N, C, L) in [0, 1] of given classes, made of other beats.

        Args:
            x: (N, C, L) source beats in [0, 1].
            y: (N,) classes.
            z: (N, L) latents in [0, 1] before smoothing; drawn if None.

        Raises:
            BadInput: if there is no trained generator: published weights hold the discriminator alone.
        """
        if self.generator is None or not self._generates:
            raise BadInput(
                "There is no trained generator here: published weights hold the discriminator, which predicts. Load "
                "the .ckpt of a training run with gan=true."
            )
        with self.inference():
            z = self.latent(len(x)) if z is None else smooth_latent(z.to(x))
            made: Tensor = self.generator(x, self.one_hot(y), z)
        return made

    def one_hot(self, y: Tensor) -> Tensor:
        """(N, K)."""
        return F.one_hot(y, self.hparams["num_classes"])

    def latent(self, count: int) -> Tensor:
        """Smooth latents (N, L), of the host's generator."""
        z = torch.zeros(count, self.hparams["length"])
        if not self.hparams["zero_latent"]:
            z = torch.rand_like(z)
        return smooth_latent(z.to(self.device))

    def example_input(self) -> tuple[Tensor, ...]:
        """Three beats (3, C, L): a spike, a wide wave and a wave of both signs, in [0, 1]."""
        channels, length = int(self.hparams["channels"]), int(self.hparams["length"])
        time = torch.linspace(-0.39, 0.39, length)
        narrow, wide = torch.exp(-0.5 * (time / 0.012) ** 2), torch.exp(-0.5 * (time / 0.035) ** 2)
        late = torch.exp(-0.5 * ((time - 0.26) / 0.05) ** 2)
        beats = torch.stack([narrow + 0.3 * late, wide - 0.5 * late + 0.5, narrow - 0.3 * wide + 0.5])
        beats = (beats - beats.amin(1, True)) / (beats.amax(1, True) - beats.amin(1, True))
        return (beats[:, None].expand(-1, channels, -1).contiguous().to(self.device),)

    # Training -----------------------------------------------------------------------------------------------------

    @property
    def is_plain(self) -> bool:
        """Whether the current epoch trains on clean beats alone, before the network attacks a copy of itself."""
        own = self.hparams["mix"] == "static" and "surrogate" not in self.others
        return own and self._trainer is not None and self.current_epoch < self.hparams["plain_epochs"]

    def mixed(self, x: Tensor, y: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """E' of a batch: beats (N, C, L), some of them attacked, and flags t (N,) that say which."""
        if self.hparams["mix"] == "none" or self.is_plain:
            return x, torch.zeros_like(y)
        attacked = (torch.rand(len(x)) < self.hparams["attack_share"]).to(x.device)
        if self.hparams["mix"] == "online":
            rows, x_adv = attacked.nonzero()[:, 0], x.clone()
            if len(rows):
                x_adv[rows] = self.crafted(self.discriminator, x[rows], y[rows], index[rows])
        else:
            x_adv = self._stored(x, y, index)
        return torch.where(attacked[:, None, None], x_adv, x), attacked.long()

    def crafted(self, network: Discriminator, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        """Attacked copies of all beats of a batch; their draws belong to the beats' numbers."""
        options = self.hparams
        kinds, radii = options["attacks"], {"eps": options["eps"], "cw_eps": options["cw_eps"]}
        with frozen_parameters(network), torch.autocast(x.device.type, enabled=False), attack_mode(network):
            return craft(network.classify, x.float(), y, index, kinds, **radii)

    def _stored(self, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        """Attacked copies that are made once, when a beat is first seen."""
        numbers = index.tolist()
        if any(number not in self._crafted for number in numbers):  # whole batches: sizes would change roundings
            made = self.crafted(self.surrogate(), x, y, index)
            for number, beat in zip(numbers, made, strict=True):
                self._crafted.setdefault(number, beat.clone())
        return torch.stack([self._crafted[number] for number in numbers]).to(x)

    def surrogate(self) -> Discriminator:
        """What static beats are attacked on: the network that was named, or a copy of D as it now is."""
        if "surrogate" in self.others:
            named: Any = self.others["surrogate"].model
            return named.discriminator  # type: ignore[no-any-return]
        if self._plain is None:
            self._plain = FrozenNetwork(copy.deepcopy(self.discriminator), "a copy of the network itself")
        own: Any = self._plain.to(self.device).model
        return own  # type: ignore[no-any-return]

    def training_step(self, batch: dict[str, Any], batch_idx: int = 0) -> None:
        """A step of D, and one of G. Logs `train/loss` of D, `train/g_loss` and D's accuracy on generated beats."""
        y, options = batch["label"], self.hparams
        x, t = self.mixed(batch["series"], y, batch["index"])
        optimizers: Any = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        plain, count = self.is_plain, len(y)
        d_weights = list(options["d_weights"])
        if options["mix"] == "none" or plain:
            d_weights[1] = 0.0
        fake = None
        if self.generator is not None and not plain:
            fake = self.generator(x, self.one_hot(y), self.latent(count))
        else:
            d_weights[0] = 0.0
        of_fake = None
        self.toggle_optimizer(optimizers[0])
        of_real = self.discriminator(x)
        if fake is not None:
            with statistics_at_rest(self.discriminator):
                of_fake = self.discriminator(fake.detach())
        loss = discriminator_loss(of_real, of_fake, t, y, d_weights)
        self._step(optimizers[0], loss)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=count)
        if fake is None or of_fake is None:
            return
        self._generates = True
        self.toggle_optimizer(optimizers[1])
        copy_first_rank(self.discriminator.buffers())  # those of its own step are of this rank's beats
        with attack_mode(self.discriminator):  # its statistics and dropout rest, gradients pass
            g_loss = generator_loss(self.discriminator(fake), t, y, options["g_weights"])
        self._step(optimizers[1], g_loss)
        right = (of_fake[2].argmax(1) == y).float().mean()  # poor beats would teach D wrong labels
        self.log("train/g_loss", g_loss.detach(), batch_size=count)
        self.log("train/fake_accuracy", right, batch_size=count)

    def _step(self, optimizer: Any, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self.untoggle_optimizer(optimizer)

    def configure_optimizers(self) -> Any:
        """Adam for each player."""
        parts = [self.discriminator] if self.generator is None else [self.discriminator, self.generator]
        rates = {"lr": self.hparams["lr"], "betas": (self.hparams["beta1"], 0.999)}
        return [torch.optim.Adam([p for p in part.parameters() if p.requires_grad], **rates) for part in parts]

    # Hooks --------------------------------------------------------------------------------------------------------

    def needed_references(self) -> tuple[str, ...]:
        """A surrogate, where one is named and attacked beats of it are wanted."""
        named = self.hparams["surrogate"] is not None and self.hparams["mix"] == "static"
        return self.references if named else ()

    def find_other(self, argument: str) -> FrozenNetwork:
        """Load the surrogate.

        Raises:
            BadInput: if it is no classifier of beats of this method with these channels.
        """
        network = super().find_other(argument)
        if not isinstance(network.model, ECGATKGAN):
            raise BadInput(f"{argument} {self.hparams[argument]}: expected a classifier of beats of this method.")
        return network

    def setup(self, stage: str) -> None:
        """Load the surrogate. One for other beats or classes cannot attack these: then the network is its own."""
        super().setup(stage)
        network = self.others.get("surrogate")
        if stage != "fit" or network is None:
            return
        theirs: Any = network.model
        keys = [k for k in ("num_classes", "channels", "length") if theirs.hparams[k] != self.hparams[k]]
        names = theirs.hparams["class_names"], self.hparams["class_names"]
        if not keys and all(names) and list(names[0]) != list(names[1]):
            keys = ["class_names"]
        if keys:
            rank_zero_warn(
                f"The surrogate {network.name} is for beats with another {keys[0]}. Beats are attacked on this "
                f"network's own trunk and class head instead, after {self.hparams['plain_epochs']} epochs on clean "
                "beats (plain_epochs)."
            )
            del self.others["surrogate"]
            self.hparams["surrogate"] = None

    def on_train_epoch_end(self) -> None:
        """All ranks score alike."""
        super().on_train_epoch_end()
        copy_first_rank(self.buffers())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the copy on which beats are attacked, and whether the generator has learned."""
        super().on_save_checkpoint(checkpoint)
        own: Any = self._plain
        plain = None if own is None else own.model.state_dict()
        checkpoint["ecg"] = {"plain": plain, "generates": self._generates}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take back what `on_save_checkpoint` added."""
        super().on_load_checkpoint(checkpoint)
        stored = checkpoint.get("ecg") or {}
        self._generates = bool(stored.get("generates", False))
        self._crafted.clear()
        if stored.get("plain") is not None:
            own = copy.deepcopy(self.discriminator)
            own.load_state_dict(stored["plain"])
            self._plain = FrozenNetwork(own, "a copy of the network itself")

    # Evaluation ---------------------------------------------------------------------------------------------------

    def make_scores(self) -> Scores:
        """Loss, accuracy and macro F1; in a test accuracy under attacks, and how well these are recognised."""
        classes = max(2, self.outputs)  # the constructor refuses fewer
        only: dict[str, Metric] = {}
        only["robust_adaptive"] = MulticlassAccuracy(classes, average="micro")
        if self.hparams["mix"] != "none":
            only["auroc_adaptive"] = BinaryAUROC()
        shared: dict[str, Metric] = {"loss": MeanMetric(nan_strategy="disable")}
        shared["accuracy"] = MulticlassAccuracy(classes, average="micro")
        return Scores(only, **shared, f1=MulticlassF1Score(classes, average="macro"))

    def evaluate_step(self, stage: str, batch: dict[str, Any]) -> None:
        """Score clean beats, and in a test those of `adaptive` PGD, which knows the network and stays undetected."""
        x, y = batch["series"].float(), batch["label"]
        logits = self(x).float()
        self.scores.update_loss(stage, F.cross_entropy(logits, y, reduction="none"), len(y))
        for name in ("accuracy", "f1"):
            self.scores.update(stage, name, logits, y)
        if stage == "test":
            x_adv = self.attacked(x, y, batch["index"])
            self.scores.update(stage, "robust_adaptive", self(x_adv).float(), y)
            if self.hparams["mix"] != "none":
                hidden = self.attacked(x, y, batch["index"], hide=True)
                chance = torch.cat([self.forward_all(part)[1].float().softmax(1)[:, 1] for part in (x, hidden)])
                truth = torch.cat([torch.zeros_like(y), torch.ones_like(y)])
                self.scores.update(stage, "auroc_adaptive", chance, truth)

    def attacked(self, x: Tensor, y: Tensor, index: Tensor, hide: bool = False) -> Tensor:
        """PGD of radius `test_eps` on this network (N, C, L).

        Args:
            x: (N, C, L) beats in [0, 1].
            y: (N,) classes.
            index: (N,) their numbers, to which the start belongs.
            hide: whether the attack also lowers the probability that it is recognised.
        """
        eps, steps = float(self.hparams["test_eps"]), int(self.hparams["test_steps"])
        model: Model = self.classes_and_attack if hide else self
        loss = undetected() if hide else "ce"
        return pgd(model, x, y, eps=eps, step=eps / 10, steps=steps, loss=loss, index=index, check=False)

    # Prediction ---------------------------------------------------------------------------------------------------

    def split_inputs(self, inputs: Any) -> list[Any]:
        """Beats of an argument of `predict`, brought to [0, 1]: arrays or tables of beats, or paths of recordings.

        A path names a WFDB recording (`.hea`; its R peaks are detected), or a file of beats (`.csv`, `.npy`, `.npz`,
        `.tsv`, `.ts`). With `scaling=record` values within [0, 1] are taken as scaled, and the beats of one call as one
        recording otherwise.
        """
        if isinstance(inputs, (str, Path)):
            return self._file(Path(inputs).expanduser())
        if isinstance(inputs, (list, tuple)) and inputs and all(isinstance(i, (str, Path)) for i in inputs):
            return [beat for one in inputs for beat in self._file(Path(one).expanduser())]
        channels = int(self.hparams["channels"])
        items = split_series(inputs, channels)
        return list(self.scaled(self._batch(items)["series"])) if items else []

    def _file(self, path: Path) -> list[Any]:
        from datamodules.beats import BeatsDataModule, beats_of_file

        if path.suffix in (".hea", ".dat", ".atr", ""):
            read = beats_of_file(path, {"lead": "", "rate": self.rate, "length": self.hparams["length"]})
            series = torch.from_numpy(read.beat)[:, None]
            if self.hparams["scaling"] == "record":
                low, span = (torch.from_numpy(v)[:, None, None] for v in (read.low, read.span))
                return list(((series - low) / span).clamp(0, 1))
            return list(self.scaled(series))
        if not path.is_file():
            raise BadInput(f"{path}: expected a recording (.hea) or a file of beats, but there is no such file.")
        return self.split_inputs([values for _, _, values in BeatsDataModule.read_inputs(path, self)])

    @property
    def rate(self) -> float:
        """Samples a second at which L points last 0.778 s."""
        return round(360.0 * float(self.hparams["length"]) / 280, 3)

    def scaled(self, series: Tensor) -> Tensor:
        """Beats (N, C, L) in [0, 1]; see `split_inputs`."""
        if self.hparams["scaling"] == "beat":
            low, high = series.amin((1, 2), True), series.amax((1, 2), True)
        elif float(series.min()) >= 0 and float(series.max()) <= 1:
            return series.float()
        else:
            low, high = series.min(), series.max()
        return ((series - low) / (high - low)).float()

    def _batch(self, items: Sequence[Any]) -> dict[str, Any]:
        batch, length = (
            make_series_batch(items, int(self.hparams["channels"]), refuse_constant=True),
            self.hparams["length"],
        )
        lengths = batch.get("length", torch.full((len(items),), batch["series"].shape[2])).tolist()
        for number, got in enumerate(lengths):
            if got != length:
                raise BadInput(
                    f"series {number}: expected a beat of {length} points (0.778 s at {self.rate:g} samples a second, "
                    f"R peak at point {length // 2}), got {got}. Resample it, or cut beats: `datamodules.beats` reads "
                    "recordings."
                )
        batch.pop("length", None)
        return batch

    def make_batch(self, items: Sequence[Any]) -> dict[str, Any]:
        """Batch of beats of equal length in [0, 1].

        Raises:
            BadInput: naming the beat and what is wrong: its length, a flat line, NaN, text.
        """
        batch = self._batch(items)
        return batch | {"series": self.scaled(batch["series"])}

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> dict[str, Any]:
        """Predictions for a batch.

        Returns:
            `logits` and `probs` (B, K), `label` (B,), `name`, and of what was trained: `attack_prob` (B,), the
            probability that the beat was attacked, and `real_score` (B,) in [0, 1], 1 for no generated beat.
        """
        score, attack, classes = self.forward_all(batch["series"].float())
        label = classes.argmax(1)
        names = [self.class_names[i] for i in label.tolist()]
        result = {"logits": classes, "probs": classes.softmax(1), "label": label, "name": names}
        if self.hparams["mix"] != "none":
            result["attack_prob"] = attack.softmax(1)[:, 1]
        return result | ({"real_score": score[:, 0]} if self.hparams["gan"] else {})

    def caption(self, result: dict[str, Any]) -> str:
        """Class and probability, and that of an attack."""
        attack = result.get("attack_prob")
        return super().caption(result) + ("" if attack is None else f"   attacked: {100 * float(attack):.0f} %")

    def show(self, inputs: Any, result: dict[str, Any]) -> Image.Image:
        """Plot a beat with what was predicted for it."""
        from zoo.pictures.series import draw_series

        return draw_series(self.make_batch(self.split_inputs(inputs)[:1])["series"][0], self.caption(result))
