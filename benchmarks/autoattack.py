"""Our ensemble against AutoAttack as the package pyautoattack has it: processor time at equal verdicts.

    python benchmarks/autoattack.py [--n 500] [--weights ID:TAG ...] [--out benchmarks/results/autoattack.json]

Both attack the same test pictures of the weights at the radius of their training, block by block in turns, so that the
drift of the machine meets both. Ours is APGD on the cross-entropy, targeted APGD and Square with 5,000 queries, each on
what withstood the former; AutoAttack adds FAB. One thread. Printed and stored: seconds of processor time, the ratio,
robust accuracy of both, and for how many pictures the verdicts are the same.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import zoo
from zoo.files import versions
from zoo.robustness.attacks import Attack, attacks_of, ensemble
from zoo.robustness.evaluate import opened

WEIGHTS = ("rslad:fmnist-resnet10w8", "cas:fmnist-resnet10w16-plain")
BLOCK = 50
BAR = 0.5


def measure(name: str, n: int) -> dict[str, Any]:
    """Both on the first `n` pictures of seed 0."""
    module = zoo.load(name)
    eps = float(module.hparams["eps"])
    ways = ("ours", "pyautoattack")
    seconds = dict.fromkeys(ways, 0.0)
    verdicts: dict[str, list[Tensor]] = {way: [] for way in ways}
    with opened(module, zoo.datamodule(name), eps, n, progress=False) as (_, run, _others):
        (theirs,) = attacks_of(["autoattack"], run.setting)
        if "pyautoattack" not in theirs.about:
            raise SystemExit('pip install "lightning-method-zoo[robust-eval]"')
        attacks = {"ours": Attack("ours", ensemble, whole=True), "pyautoattack": theirs}
        for number, first in enumerate(range(0, len(run.x), BLOCK)):
            part = run.part(first, min(first + BLOCK, len(run.x)))
            for way in ways[:: 1 if number % 2 else -1]:
                began = time.process_time()
                verdicts[way].append(part.run(attacks[way]))
                seconds[way] += time.process_time() - began
    ours, peer = (torch.cat(verdicts[way]) for way in ways)
    same = int((ours == peer).sum())
    shares = {way: flags.float().mean().item() for way, flags in (("ours", ours), ("pyautoattack", peer))}
    return {
        "what": f"AutoAttack of {name}, {len(ours)} pictures; robust {shares['ours']:.1%} (ours) and "
        f"{shares['pyautoattack']:.1%}; {same} verdicts the same",
        "batch": BLOCK,
        "ours_ms": 1000 * seconds["ours"],
        "peer": "pyautoattack",
        "peer_ms": 1000 * seconds["pyautoattack"],
        "ratio": seconds["ours"] / seconds["pyautoattack"],
        "bar": BAR,
        "robust_ours": shares["ours"],
        "robust_theirs": shares["pyautoattack"],
        "same": same,
        "n": len(ours),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--weights", nargs="+", default=list(WEIGHTS))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in options.weights:
        rows.append(measure(name, options.n))
        print(f"{rows[-1]['what']}: {rows[-1]['ratio']:.2f} of {rows[-1]['peer_ms'] / 1000:.0f} s", flush=True)
    if options.out:
        content = {"versions": versions("torch", "pyautoattack"), "threads": 1, "rows": rows}
        options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
