"""What gradients give away with and without lock, and what the network is worth without key.

Leakage: a client's gradient of one picture of Fashion-MNIST in the LeNet, of which the server sees that of the shared
weights; the attacker knows the label and these weights, and inverts it by DLG with L-BFGS. Weights are uniform on
[-0.5, 0.5] and batch statistics those of the picture, as in the authors' tests. The similarity (SSIM) of the picture to
the best match is that of torchmetrics.
"""

from __future__ import annotations

import copy
import statistics
from typing import Any

import torch
from torch import Tensor

from zoo import checks
from zoo.methods.fedkl.lock import LockedNetwork
from zoo.methods.fedkl.network import make_network
from zoo.studies import Outcome, study

KNOWN = ("nothing", "lock", "key", "both")
"""What the attacker knows of the client's own parts; what is not known is drawn at random."""


def attackers_network(network: LockedNetwork, knows: str) -> LockedNetwork:
    """The client's network as an attacker has it.

    Args:
        network: of the client.
        knows: nothing, lock (layers), key or both.
    """
    checks.one_of("knows", knows, KNOWN)
    other = copy.deepcopy(network)
    if knows == "both":
        return other
    key, layers = other.lock_key.clone(), [copy.deepcopy(block.state_dict()) for block in other.blocks]
    other.reset_lock()
    if knows == "key":
        other.lock_key.copy_(key)
    if knows == "lock":
        for block, state in zip(other.blocks, layers, strict=True):
            block.load_state_dict(state)
    return other


def shared_parameters(network: torch.nn.Module) -> list[Tensor]:
    """What the client sends, in order."""
    return [p for name, p in network.named_parameters() if "lock_" not in name]


def pictures(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Validation pictures (count, 1, 28, 28) and their classes."""
    from datamodules.images import ImagesDataModule

    data = ImagesDataModule(seed=seed, train_size=100, val_size=200, test_size=100)
    data.prepare_data()
    data.setup("fit")
    items = [data.split("val")[number] for number in range(count)]
    return torch.stack([i["image"] for i in items]), torch.tensor([int(i["label"]) for i in items])


@study("ssim", "mse", "recovered")
def leakage(
    preset: str = "strong",
    control: str = "lock",
    knows: str = "nothing",
    layers: str = "single",
    attack: str = "dlg",
    count: int = 5,
    steps: int = 40,
    seed: int = 0,
) -> Outcome:
    """Mean SSIM and mean square error on [0, 1] of the reconstructions; `recovered`: share with an SSIM above 0.5."""
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    from zoo.methods.fedkl.module import PRESETS
    from zoo.nn.gradient_inversion import gradient_of, invert

    images, labels = pictures(count, seed)
    alike, errors = [], []
    for number in range(count):
        torch.manual_seed(1000 * seed + number)
        network = make_network("lenet", 10, 1, 28, control, layers, **PRESETS[preset]).train()
        image, label = images[number : number + 1], labels[number : number + 1]
        target = gradient_of(network, shared_parameters(network), image, label)
        known: Any = attackers_network(network, knows) if isinstance(network, LockedNetwork) else network
        weights = shared_parameters(known)
        result = invert(known, weights, target, image.shape, label, settings=attack, steps=steps, seed=number)
        shown = result.image.clamp(0, 1).nan_to_num(0.5)
        alike.append(float(ssim(shown, image, data_range=1.0)))  # type: ignore[arg-type]
        errors.append(float(((shown - image) ** 2).mean()))
    return Outcome(
        {
            "ssim": statistics.fmean(alike),
            "mse": statistics.fmean(errors),
            "recovered": sum(value > 0.5 for value in alike) / count,
        },
        {"ssim": [(float(number), value) for number, value in enumerate(alike)]},
    )


@study("open", "wrong_key", "wrong_lock", "fresh", "zero", "none")
def inference(preset: str = "strong", rounds: int = 15, images: int = 6000, seed: int = 0) -> Outcome:
    """Test accuracy with the first client's lock, another key, other lock layers, both, zeros, and without lock."""
    from lightning import seed_everything

    from datamodules.clients import ClientsDataModule
    from zoo.methods.fedkl.module import FedKL
    from zoo.studies.rounds import run_rounds

    seed_everything(seed, verbose=False)
    learner = FedKL(preset=preset, channels=1, img_size=28, mean=[0.286], std=[0.353], lr=0.02, client_processes=1)
    sizes = {"train_size": images, "val_size": 500, "test_size": 2000}
    data = ClientsDataModule(num_clients=3, partition="iid", seed=seed, batch_size=64, drop_last=True, **sizes)  # type: ignore[arg-type]
    run = run_rounds(learner, data, rounds, test=False)
    assert isinstance(learner.network, LockedNetwork)
    learner.eval()
    items = [data.split("test")[number] for number in range(2000)]
    image = torch.stack([i["image"] for i in items])
    label = torch.tensor([int(i["label"]) for i in items])

    def accuracy(network: Any, locked: bool = False) -> float:
        with torch.no_grad():
            logits = network.locked(learner.prepared(image)) if locked else network(learner.prepared(image))
        return float((logits.argmax(1) == label).float().mean())

    torch.manual_seed(seed + 1)
    made = {known: attackers_network(learner.network, known) for known in KNOWN}
    zero = copy.deepcopy(learner.network)
    with torch.no_grad():
        for name, value in zero.state_dict().items():
            if "lock_" in name:
                value.zero_()
    metrics = {
        "open": accuracy(made["both"]),
        "wrong_key": accuracy(made["lock"]),
        "wrong_lock": accuracy(made["key"]),
        "fresh": accuracy(made["nothing"]),
        "zero": accuracy(zero),
        "none": accuracy(learner.network, locked=True),
    }
    return Outcome(metrics, {"accuracy": run.curve})
