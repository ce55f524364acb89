"""One result as plain values for JSON, and as a line for people."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

__all__ = ["plain", "summary"]

_LONG = 2000
"""Arrays with more elements go to .npy files instead of the JSON."""


def plain(value: Any, folder: Path | None, name: str, most: float = _LONG) -> Any:
    """JSON of one result.

    Args:
        value: of one key.
        folder: where arrays of more than `most` elements go as .npy files; None: their shape alone is kept.
        name: of such a file.
        most: elements.
    """
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().float().numpy() if value.dtype == torch.bfloat16 else value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        if value.size <= most:
            return [_rounded(v) for v in value] if value.ndim else _rounded(value)
        if folder is None:
            return {"shape": list(value.shape), "dtype": str(value.dtype), "note": "long: use --out DIR to keep it"}
        np.save(folder / f"{name}.npy", value)
        return {"shape": list(value.shape), "dtype": str(value.dtype), "file": f"{name}.npy"}
    if isinstance(value, (list, tuple)):
        return [plain(v, folder, f"{name}-{i}", most) for i, v in enumerate(value)]
    if isinstance(value, dict):
        return {str(k): plain(v, folder, f"{name}-{k}", most) for k, v in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _rounded(value: Any) -> Any:
    if getattr(value, "ndim", 0):
        return [_rounded(v) for v in value]
    number = value.item()
    if not isinstance(number, float):
        return number
    # JSON knows no NaN; six digits are what a float32 holds, without its tail of noise
    return float(f"{number:.6g}") if math.isfinite(number) else None


def summary(row: dict[str, Any]) -> str:
    """A line about one result: names with scores where there are any, else the short values."""
    names, scores = row.get("names"), row.get("scores")
    if isinstance(names, list) and isinstance(scores, list):
        pairs = [f"{name} {score:.2f}" for name, score in zip(names, scores, strict=False)]
        more = f", ... ({len(pairs) - 12} more)" if len(pairs) > 12 else ""
        return (", ".join(pairs[:12]) + more) or "nothing found"
    probs, label = row.get("probs"), row.get("label")
    if isinstance(probs, list) and isinstance(label, int) and label < len(probs):
        return f"{row.get('name', label)} {probs[label]:.2f}"
    short = {k: v for k, v in row.items() if k not in ("input", "picture") and len(json.dumps(v)) < 80}
    return ", ".join(f"{k} {json.dumps(v, ensure_ascii=False)}" for k, v in short.items()) or "done; --json shows it"
