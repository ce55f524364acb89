"""`--device`: which device a command computes on."""

from __future__ import annotations

from zoo.errors import BadInput

__all__ = ["device_of"]


def device_of(text: str) -> str:
    """The device that a word stands for.

    Args:
        text: auto, cpu, cuda, cuda:1 or mps; auto is a GPU that torch can use, else the processor.

    Raises:
        BadInput: if there is no such device here.
    """
    import torch

    gpus, mps = torch.cuda.device_count() if torch.cuda.is_available() else 0, torch.backends.mps.is_available()
    if text == "auto":
        return "cuda" if gpus else "mps" if mps else "cpu"
    kind, _, number = text.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not number.isdecimal()):
        raise BadInput(f"--device: {text!r} is none of auto, cpu, cuda, cuda:1, mps.")
    if kind == "cuda" and int(number or 0) >= gpus:
        there = f"{gpus} CUDA device{'s' * (gpus != 1)}" if gpus else "no CUDA device that torch can use"
        raise BadInput(f"--device {text}: this machine has {there}. Give cpu, or leave --device out.")
    if kind == "mps" and not mps:
        raise BadInput(f"--device {text}: this machine has no Metal device that torch can use. Give cpu.")
    return text if kind != "cpu" else "cpu"
