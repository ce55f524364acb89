"""What can be said about robust soft labels without training anything: their loss, and the published teachers."""

from __future__ import annotations

import warnings

import torch
from lightning.pytorch import Trainer
from torch.nn import functional as F

from zoo.nn.adversarial_losses import kl
from zoo.studies import Outcome, study


@study("largest_error")
def one_hot(batches: int = 200) -> Outcome:
    """Largest relative difference of KL from cross-entropy where the teacher is certain."""
    draw = torch.Generator().manual_seed(0)
    worst = 0.0
    for _ in range(batches):
        logits = 3 * torch.randn(16, 10, generator=draw)
        labels = torch.randint(10, (16,), generator=draw)
        sure = (1e4 * F.one_hot(labels, 10).float()).log_softmax(1)
        actual, expected = kl(sure, logits.log_softmax(1)), F.cross_entropy(logits, labels)
        worst = max(worst, (actual / expected - 1).abs().item())
    return Outcome({"largest_error": worst})


@study("largest_error")
def reduction(batches: int = 200) -> Outcome:
    """Largest relative difference of a tenth of KL from a mean over samples and ten classes, with 1e-5 in the log."""
    draw = torch.Generator().manual_seed(0)
    worst = 0.0
    for _ in range(batches):
        teacher, student = (3 * torch.randn(16, 10, generator=draw) for _ in range(2))
        p, log_q = teacher.softmax(1), student.log_softmax(1)
        theirs = (p * torch.log(p + 1e-5) - p * log_q).mean()
        worst = max(worst, (0.1 * kl(teacher.log_softmax(1), log_q) / theirs - 1).abs().item())
    return Outcome({"largest_error": worst})


@study("test/robust", "test/accuracy")
def teacher(
    tag: str = "fmnist-resnet10w24-trades", pictures: int = 1000, root: str | None = None, batch_size: int = 250
) -> Outcome:
    """Published weights under the attacks that judge the students, on the same test pictures."""
    from zoo.store import datamodule, load

    model = load(f"rslad:{tag}", test_attacks=["apgd-ce", "apgd-dlr"])
    data = datamodule(f"rslad:{tag}", root=root, test_size=pictures, batch_size=batch_size)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        (measured,) = trainer.test(model, data, verbose=False)
    return Outcome({name: float(measured[name]) for name in ("test/robust", "test/accuracy")})
