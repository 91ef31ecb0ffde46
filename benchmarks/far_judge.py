"""A scorer that works elsewhere, as a judge behind an API does: it takes time and no processor."""

from __future__ import annotations

import asyncio


async def far_judge(sample, *, seconds: float):
    """Mean brightness after `seconds`."""
    await asyncio.sleep(seconds)
    return sample.video.mean().item()
