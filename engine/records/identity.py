"""What run a record is of: what tells it from every other, which code made it, and what its weights had seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.config import asked

RESOLVED = ("batch_size", "epochs", "lr", "weights")  # flags of which what they came to tells runs apart


def matches(record: Mapping[str, Any], identity: Mapping[str, Any]) -> bool:
    """Whether `record` is of the run with that identity; what an older record does not say is not held against it."""
    return matches_identity(identity_of(record), identity)


def matches_identity(own: Mapping[str, Any], identity: Mapping[str, Any]) -> bool:
    """Whether two identities are one, as far as the first says."""
    return all(own.get(name, value) == value for name, value in identity.items())


def is_other_seed(record: Mapping[str, Any], identity: Mapping[str, Any]) -> bool:
    """Whether `record` is of the run with that identity but for the seed or the fold, and with it the split."""

    def without_seed(identity: Mapping[str, Any]) -> dict[str, Any]:
        asked = {name: value for name, value in identity["asked"].items() if name not in ("seed", "fold")}
        return {name: value for name, value in identity.items() if name != "split"} | {"asked": asked}

    return matches_identity(without_seed(identity_of(record)), without_seed(identity))


def identity_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """What tells the run of a record from every other, as far as the record says."""
    own = {name: record[name] for name in ("batch_size", "decoder", "epochs", "lr") if name in record}
    if record.get("sweep") is not None:
        own.pop("lr", None)  # that which the sweep chose, not that which it began with
    dataset = record["dataset"]
    own |= {"dataset": dataset["key"], "version": dataset["version"], "split": dataset["split"]}
    return own | {"weights": record["backbone"]["weights_sha256"], "asked": asked_beyond_result(record["config"])}


def saw_test_images(record: Mapping[str, Any]) -> bool:
    """Whether the weights that a run began from are known to have seen its test images, or may have.

    Of an earlier run whose checkpoint does not say which images it saw, those of the same dataset may have.
    """
    earlier = record["backbone"]["weights_run"]
    if not earlier:
        return False
    seen = earlier.get("seen")
    return bool(earlier["dataset"] == record["dataset"]["key"] if seen is None else seen > 0)


def other_codes(record: Mapping[str, Any], code: Mapping[str, str]) -> list[dict[str, str]]:
    """The hashes of the code that made a record, as far as it is other code than `code`."""
    return [each for each in codes_of(record) if each != code]


def codes_of(record: Mapping[str, Any]) -> list[dict[str, str]]:
    """The hashes of the code that made a record, several where other code resumed it; none where it lacks them."""
    environments = [record["environment"], *(resume["environment"] for resume in record["resumed"])]
    different: list[dict[str, str]] = []
    for code in (environment.get("code") for environment in environments):
        if code and code not in different:
            different.append(code)
    return different


def asked_beyond_result(config: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for, without the flags of which an identity holds what they came to.

    A learning rate from which a sweep begins is kept: the record has that which the sweep chose in its place.
    """
    swept = config.get("lr_sweep")
    return {name: value for name, value in asked(config).items() if name not in RESOLVED or (name == "lr" and swept)}
