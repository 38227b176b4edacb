"""Records that were kept, of one and the same run: by the version that wrote schema 1, and by that of schema 2."""

import json
from pathlib import Path
from typing import Any

SCHEMA_1 = Path(__file__).with_name("schema1.json")
SCHEMA_2 = Path(__file__).with_name("schema2.json")
# the run's command line, without where things lie; --device names what the record was asked for
LINE = "-model shufflenet -bs 16 --size 32 --epochs 2 --weights none --plan off --compile off --seed 1 --device auto"


def content(path: Path) -> dict[str, Any]:
    """What the file of a record holds, without its checksum, so that it can be changed and written again."""
    found: dict[str, Any] = json.loads(path.read_text())
    found.pop("checksum", None)
    return found


def as_schema_1(record: dict[str, Any]) -> dict[str, Any]:
    """A record of schema 2 as the version that wrote schema 1 would have written it."""
    counts = record["dataset"]["counts"]
    names = {"train": "available", "fit": "train", "select": "val", "test": "test"}
    old = {name: value for name, value in record.items() if name not in ("decoder", "epochs")}
    old |= {"schema": 1, "config": record["config"] | {"ema": False, "layer_decay": None}}
    old["dataset"] = record["dataset"] | {"counts": {name: counts[today] for name, today in names.items()}}
    del old["dataset"]["subjects"]
    return old
