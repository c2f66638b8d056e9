"""Makes detector_reference.safetensors: what the detector's pooled features look like on rendered scenes.

    python detector_reference.py --train FOLDER --detector FILE.safetensors

FOLDER holds the training code of the embedded model (scenes.py, nets.py, train_detector.py, parallel.py), which is
not part of this repository. Two independent sets of scenes, drawn like the random layouts of `compare`: 1, 2, 3,
1, ... objects of different kinds, any colour, any place.

mean [64], covariance [64, 64]: of the first set, seed 20260, 8192 scenes. Generated pictures are compared with it.
features [512, 64], half precision: of each scene of the second set, seed 20261. They tell how far from the first
set so many *real* scenes are, which is the smallest distance that so many pictures can be expected to have.

Made with Python 3.11.7, torch 2.13.0, numpy 2.4.6 and Pillow 12.3.0.
"""
import argparse
import hashlib
import json
import random
import struct
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

REFERENCE, SECOND = (20260, 8192), (20261, 512)


def scenes_of(scenes, seed, count):
    rng = random.Random(seed)
    for i in range(count):
        n = 1 + i % 3
        kinds = rng.sample(scenes.KINDS, n)
        boxes = scenes.place(n, kinds, rng)
        while len(boxes) < n:
            boxes = scenes.place(n, kinds, rng)
        things = [scenes.Thing(k, rng.choice(list(scenes.COLOURS)), b) for k, b in zip(kinds, boxes)]
        yield scenes.render(rng.choice(list(scenes.BACKGROUNDS)), things, rng).image


@torch.no_grad()
def features(detector, images):
    """[n, 64]: mean over the cells of the last hidden layer."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    y = detector.stem(x)
    y = detector.head(torch.cat([y, F.interpolate(detector.deep(y), scale_factor=2.0, mode="nearest")], 1))
    return y.double().mean((2, 3)).numpy()


def collect(scenes, detector, seed, count):
    out, batch = [], []
    for i, image in enumerate(scenes_of(scenes, seed, count)):
        batch.append(image)
        if len(batch) == 64 or i == count - 1:
            out.append(features(detector, np.stack(batch)))
            batch = []
    return np.concatenate(out)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--train", required=True)
    ap.add_argument("--detector", required=True)
    a = ap.parse_args()
    sys.path.insert(0, a.train)
    import scenes
    import train_detector

    detector = train_detector.load(Path(a.detector))
    first = collect(scenes, detector, *REFERENCE)
    second = collect(scenes, detector, *SECOND)
    tensors = {
        "mean": ("F32", first.mean(0).astype("<f4")),
        "covariance": ("F32", np.cov(first.T).astype("<f4")),
        "features": ("F16", second.astype("<f2")),
    }
    sha = {n: hashlib.sha256((Path(a.train) / n).read_bytes()).hexdigest() for n in ("scenes.py", "train_detector.py")}
    header, data = {"__metadata__": {
        "maker": "detector_reference.py",
        "sets": json.dumps({"reference": REFERENCE, "features": SECOND}),
        "detector": hashlib.sha256(Path(a.detector).read_bytes()).hexdigest(),
        **sha,
    }}, b""
    for name, (dtype, x) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(x.shape), "data_offsets": [len(data), len(data) + x.nbytes]}
        data += x.tobytes()
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    Path(__file__).with_suffix(".safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


main()
