"""Stands in for scripts/main.py: its arguments, files and ways to end, without training.

$STANDIN is a JSON file: name of a row's run, such as "G/seed-1" → what happens in it: "fail",
"full" (the disk), "hang" after the first checkpoint, "last" (fails after it), "fp32" (in bf16
otherwise).
"""

import json
import os
import random
import sys
import time
from pathlib import Path

LAST_EPOCHS = 24, 30  # of configs/dsa_demo.yaml and magnifier_demo.yaml


def main(argv):
    assert argv[0] == "--config-file"
    pairs = dict(zip(argv[2::2], argv[3::2], strict=True))
    folder = Path(pairs["data.save_dir"])
    name = f"{folder.parent.name}/{folder.name}"
    orders = Path(os.environ["STANDIN"])
    order = json.loads(orders.read_text()).get(name, "") if orders.is_file() else ""
    print(f"threads {os.environ['OMP_NUM_THREADS']} gpu {os.environ.get('CUDA_VISIBLE_DEVICES')}")
    print(f"resume {pairs.get('model.resume')}")
    print(f"keep {pairs.get('train.keep_freq')}")
    print(f"backbone {pairs.get('model.backbone_weights')}")
    print(f"weights {pairs.get('model.load_weights')}", flush=True)
    if order == "fail":
        raise ValueError("the loss is not finite")
    if order == "full":
        raise OSError(28, "No space left on device")
    facts = {"precision": order if order == "fp32" else "bf16", "gpus": [], "processor": "Abacus"}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run-1.json").write_text(json.dumps({**facts, "threads": 1}))
    model = folder / "model"
    model.mkdir(parents=True, exist_ok=True)
    for epoch in (1, 2, *LAST_EPOCHS):
        print(f"epoch: [{epoch}/30][1/1]\ttime 0.1", flush=True)
        if "test.evaluate" not in pairs:
            (model / f"model.pth.tar-{epoch}").write_text(str(epoch))
        if order in ("hang", "last"):
            time.sleep(60 if order == "hang" else 0.1)
            sys.exit("stopped after the first checkpoint")
    write_results(folder, int(pairs["train.seed"]), quality(pairs))


def quality(pairs):
    """A score that rises with the number of branches."""
    return len(pairs[os.environ.get("STANDIN_KEY", "magnifier.branches")])


def write_results(folder, seed, quality):
    """20 people with two queries each."""
    draw, own = random.Random(seed), random.Random(f"{seed} {quality}")
    lines = ["data_set,path,pid,average_precision,first_match,twin,first_hit_is_twin"]
    values = []
    for query in range(40):
        ap = min(
            1.0, max(0.01, 0.3 + 0.02 * quality + draw.uniform(-0.2, 0.2) + own.uniform(0, 0.04))
        )
        twin = "with" if query < 20 else "without"
        lines.append(
            f"synthetic,query/{query}.jpg,{query // 2},{ap},{1 if ap > 0.4 else 2},{twin},no"
        )
        values.append((ap, float(ap > 0.4)))
    (folder / "queries.csv").write_text("\n".join(lines) + "\n")

    def metrics(part):
        return {
            "mAP": sum(v[0] for v in part) / len(part),
            "rank-1": sum(v[1] for v in part) / len(part),
        }

    groups = {"with": metrics(values[:20]), "without": metrics(values[20:])}
    result = {
        **metrics(values),
        "conditions": {"twin": groups},
        "first_hit_is_twin": {"queries": 20, "share": 0.25},
    }
    (folder / "results.json").write_text(json.dumps({"results": {"synthetic": result}}))


if __name__ == "__main__":
    main(sys.argv[1:])
