"""Train, validate, test or predict with any method of the zoo.

    python train.py fit --zoo NAME[:TAG] [--data.root DIR] [any LightningCLI flag]
    python train.py test --zoo NAME[:TAG]

`python train.py --help` shows more. Installed without a checkout, `zoo train NAME[:TAG] ...` does the same as `fit`.
"""

from __future__ import annotations

import sys

from zoo.training import main

if __name__ == "__main__":
    sys.exit(main())
