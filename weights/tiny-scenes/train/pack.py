"""Copies a trained model folder with its weights in half precision."""
from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--model", type=Path, required=True)
    ap.add_argument("--out", type=Path, required=True)
    a = ap.parse_args()
    shutil.copytree(a.model, a.out, dirs_exist_ok=True)
    for path in a.out.rglob("*.safetensors"):
        save_file({k: v.half() for k, v in load_file(path).items()}, path, {"format": "pt"})
        print(path, path.stat().st_size, "bytes")
    config = a.out / "text_encoder/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"torch_dtype": "float16"}, indent=2) + "\n")


if __name__ == "__main__":
    main()
