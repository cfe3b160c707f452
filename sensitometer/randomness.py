"""Random streams. Each comes from (seed, purpose) alone, so that no result depends on what else was trained beside it."""

import hashlib

import torch


def generator(seed: int, purpose: str) -> torch.Generator:
    """Return a fresh CPU generator for one purpose (`weights`, `order`, `labels`, ...) of one seed."""
    digest = hashlib.sha256(f"{purpose}:{seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
