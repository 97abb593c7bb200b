"""scripts/main.py with a tiny network, for torchrun; its second process can fail on demand.

python tests/torchrun_main.py FAILING_EPOCH … : in the first attempt process 1 fails in that epoch
(counted from 0; -1: in none), with an error that nothing expects.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import main  # scripts/main.py
from tiny import tiny_model

from magnifier_plugin import recipe


def fail(epoch):
    step = recipe.StagedEngine.forward_backward
    first_attempt = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"

    def failing(engine, data):
        if first_attempt and os.environ["RANK"] == "1" and engine.epoch == epoch:
            raise RuntimeError("this process fails on demand")
        return step(engine, data)

    recipe.StagedEngine.forward_backward = failing


if __name__ == "__main__":
    recipe.build_network = lambda cfg, system, classes, **_: tiny_model(classes, cfg.loss.name)
    fail(int(sys.argv[1]))
    sys.exit(main.main(sys.argv[2:]))
