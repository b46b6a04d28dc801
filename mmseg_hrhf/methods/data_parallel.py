"""Data-parallel training on machines without a GPU."""
from __future__ import annotations

from typing import Optional

from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.registry import MODEL_WRAPPERS
from torch import nn


@MODEL_WRAPPERS.register_module()
class IncrementalDataParallel(MMDistributedDataParallel):
    """DDP over gloo: no device ids, and batch norm per process, since SyncBN exists on accelerators only."""

    def __init__(self, module: nn.Module, device_ids: Optional[list] = None, **kwargs) -> None:
        del device_ids  # mmengine passes the local rank, which DDP refuses for modules on the CPU
        super().__init__(revert_sync_batchnorm(module), device_ids=None, **kwargs)
