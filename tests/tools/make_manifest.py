"""Makes blobs and a manifest of them, as some other team's program would; knows nothing of the tool that loads them.

    python make_manifest.py FOLDER MODELS VERSIONS

FOLDER/manifest.jsonl gets one row for each version of each model: its blob lies in FOLDER/blobs/.
"""

import json
import sys
from pathlib import Path


def main() -> None:
    folder, models, versions = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    (folder / "blobs").mkdir(parents=True)
    with open(folder / "manifest.jsonl", "w") as manifest:
        for model in range(models):
            for version in range(versions):
                name = f"m{model:04}-{version}.bin"
                (folder / "blobs" / name).write_bytes(f"weights of {model}/{version}\n".encode() * (1 + version % 7))
                row = {
                    "location": f"model-{model:04}/v{version}",
                    "source": f"blobs/{name}",
                    "name": "weights.bin",
                    "accuracy": round(0.5 + version / 1000, 4),
                    "epochs": version,
                    "public": version % 2 == 0,
                    "tags": ["nightly", {"gpu": None}],
                }
                manifest.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
