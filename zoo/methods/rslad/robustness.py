"""How robust the weights of rslad are, as `robustness.json` of the card.

    python -m zoo.methods.rslad.robustness evaluate --tags fmnist-resnet10w8 --n 300     # minutes
    python -m zoo.methods.rslad.robustness evaluate --tags cifar10-resnet10w16=last.ckpt --root data --n 200
    python -m zoo.methods.rslad.robustness table

`evaluate` is `zoo.evaluate_robustness` with its standard attacks, AutoAttack (pyautoattack) among them, and the battery
against masked gradients, on test pictures drawn by seed 0, at the radius of the training: 0.1 (Fashion-MNIST) or 8/255
(CIFAR-10). Reports of other weights stay in the file. `table` prints the rows of the card.
"""

from __future__ import annotations

from zoo.robustness.stored import main

TAGS = (
    "fmnist-resnet10w24-natural",
    "fmnist-resnet10w24-trades",
    "fmnist-resnet10w8",
    "cifar10-resnet10w16-natural",
    "cifar10-resnet10w16-fgsm",
    "cifar10-resnet10w24-trades",
    "cifar10-resnet10w16",
)
COLUMNS = {
    "PGD-20": ["pgd-20"],
    "CW-30": ["cw-30"],
    "APGD": ["apgd-ce", "apgd-dlr"],
    "AutoAttack": ["autoattack"],
}

if __name__ == "__main__":
    main("rslad", __doc__, TAGS, COLUMNS, usual=TAGS[:3])
