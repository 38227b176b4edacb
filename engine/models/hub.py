"""Weights on the Hugging Face hub, by its own library, which keeps what it fetches in HF_HOME."""

from __future__ import annotations

from pathlib import Path

from engine.errors import UserError, one_line
from engine.models.backbone import HubFile

NEEDED = "huggingface_hub>=0.27"


def kept_file(weights: HubFile) -> Path | None:
    """The file of the weights as it is kept; None: it is not. UserError: the package that keeps it is not installed."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError as problem:
        raise UserError(
            f"the weights {weights.name} need the package huggingface_hub ({problem}): pip install '{NEEDED}'"
        ) from problem
    for name in weights.files:
        kept = try_to_load_from_cache(weights.repository, name)
        if isinstance(kept, str):
            return Path(kept)
    return None


def hub_file(weights: HubFile) -> Path:
    """The file of the weights: as it is kept, else fetched. UserError: neither can be had."""
    if kept := kept_file(weights):
        return kept
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    reason = ""
    for name in weights.files:
        try:
            return Path(hf_hub_download(weights.repository, name))
        except LocalEntryNotFoundError as problem:  # offline, or the hub can't be reached
            reason = reason or str(problem)
        except EntryNotFoundError:  # of that name; there may be the other one
            reason = reason or f"there is no {name}"
        except Exception as problem:  # of the network, of the disk, and what the hub refuses
            reason = reason or f"{type(problem).__name__}: {problem}"
    place = Path(constants.HF_HUB_CACHE) / f"models--{weights.repository.replace('/', '--')}"
    raise UserError(
        f"the weights {weights.name} can't be fetched: {one_line(' '.join(reason.split()))[:200]}.\nOn a machine that "
        f'reaches https://huggingface.co: python -c "from huggingface_hub import hf_hub_download as get; '
        f"print(get('{weights.repository}', '{weights.files[0]}'))\". Then copy {place.name} to {place.parent}, or "
        "give that file: --weights FILE."
    )
