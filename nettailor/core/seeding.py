"""The random numbers of a stage, whatever ran before it in this process."""

import zlib

import torch


def seed_stage(seed: int, stage: str) -> None:
    """Seed torch for a stage of a run, such as "teacher"; seed is the run's."""
    torch.manual_seed(zlib.crc32(f"{seed} {stage}".encode()))
