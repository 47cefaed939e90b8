"""How good is somebody else's network? On a published bench, or on pairs of one's own. Seconds.

    python examples/06_evaluate_somebody_elses_network.py [MODEL DATA]

MODEL: a checkpoint of AdaFace, CVLface or arcface_torch, or an .onnx; DATA: LFW's aligned crops, folder or zip.
Without them, a network that knows nothing is measured on pictures that show nothing: about 50 %.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import facenas

if len(sys.argv) > 2:
    result = facenas.evaluate(sys.argv[1], bench="lfw", data=sys.argv[2])
    print(f"LFW: {100 * result.accuracy:.2f} % ± {100 * result.std:.2f}, EER {100 * result.eer:.2f} %")
    sys.exit()

# Any pictures and any list of pairs: `path path 1` for the same person, 0 for two.
folder = Path("runs/evaluate-example")
folder.mkdir(parents=True, exist_ok=True)
rng, lines = np.random.default_rng(0), []
for number in range(40):
    Image.fromarray(rng.integers(0, 256, (112, 112, 3), dtype=np.uint8)).save(folder / f"{number}.png")
for fold in range(10):
    lines += [f"{4 * fold}.png {4 * fold + 1}.png 1", f"{4 * fold + 2}.png {4 * fold + 3}.png 0"]
(folder / "pairs.txt").write_text("\n".join(lines))


def embed(images):
    """Any function of (n, 112, 112, 3) uint8 RGB, any nn.Module, or an object with `embed` will do."""
    return images[:, ::8, ::8].reshape(len(images), -1).astype(np.float32) - 127.5


result = facenas.evaluate(embed, bench=facenas.benches.Pairs("mine", folder / "pairs.txt"), data=folder)
print(f"own pairs: {100 * result.accuracy:.1f} % of {len(lines)}, area under the ROC {result.auc:.2f}")
