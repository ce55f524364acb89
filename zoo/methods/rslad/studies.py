"""What can be said about the loss of robust soft labels without training anything."""

from __future__ import annotations

import torch
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
