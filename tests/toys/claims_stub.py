"""Stands in for `python -m` in the tests of `zoo reproduce`: writes what training would, in milliseconds.

Its first argument is the test's folder: `calls.txt` there gets a line per call, and `slow`, `broken` and `stubborn`
hold words that make a call wait, fail, or end well without a result. `luck`, JSON, holds scores by rate and seed;
`extra`, JSON, what a fit adds to its result.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main(words: list[str]) -> int:
    base, line = Path(words[0]), " ".join(words[1:])
    with (base / "calls.txt").open("a") as file:
        file.write(line + "\n")
    asked = {n: (base / n).read_text() for n in ("slow", "broken", "stubborn") if (base / n).is_file()}
    if "slow" in asked and asked["slow"] in line:
        print("epoch 1/3  train/loss 1", flush=True)
        time.sleep(60)
    if "broken" in asked and asked["broken"] in line:
        print("out of luck")
        return 3
    if "stubborn" in asked and asked["stubborn"] in line:
        return 0
    if words[1] == "zoo.studies":
        Path(words[5]).write_text(json.dumps({"metrics": {"error": 0.5}, "curves": {}}))
        return 0
    flags = dict(w.removeprefix("--").split("=", 1) for w in words if w.startswith("--") and "=" in w)
    run = Path(flags["trainer.default_root_dir"]) / words[5].replace(":", "-") / "version_0"
    (run / "checkpoints").mkdir(parents=True)
    score = float(flags.get("model.lr", 0)) + int(flags["seed_everything"]) / 100
    found = {"command": words[3], "epochs": 2, "steps": 8, "metrics": {"val/acc": score}}
    if words[3] == "fit":
        for name in ("last", "best"):
            (run / "checkpoints" / f"{name}.ckpt").write_text(line)
        found["checkpoint"] = str(run / "checkpoints" / "last.ckpt")
        found |= json.loads((base / "extra").read_text()) if (base / "extra").is_file() else {}
        rows = ["epoch,step,train/loss,val/acc,val/acc/cat", "0,1,2.0,,", "0,2,1.0,,", "0,2,,0.25,1", f"1,4,,{score},1"]
        (run / "metrics.csv").write_text("\n".join(rows) + "\n")
    elif words[3] == "test":
        # the score travels with the checkpoint
        trained = Path(words[words.index("--ckpt_path") + 1]).read_text()
        rate = float(dict(w.removeprefix("--").split("=", 1) for w in trained.split() if "=" in w).get("model.lr", 0))
        luck = json.loads((base / "luck").read_text()) if (base / "luck").is_file() else {}
        usual = rate + int(flags["seed_everything"]) / 100
        found["metrics"] = {"test/acc": luck.get(f"{rate}:{flags['seed_everything']}", usual)}
    (run / "result.json").write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
