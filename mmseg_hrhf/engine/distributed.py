"""Distributed processes, with or without GPUs."""
from __future__ import annotations

import datetime
import os
from typing import Callable, Optional, TypeVar

import torch
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, init_dist, is_distributed, is_main_process
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.registry import MODEL_WRAPPERS
from mmengine.utils.dl_utils import set_multi_processing
from torch import nn

from ..utils.errors import UserError

Found = TypeVar('Found')
# In seconds. Waiting for other ranks' synthetic images, or for rank 0 to scan the masks, takes far longer than waiting
# for a gradient.
_TIMEOUT = 6 * 3600


def start_distributed(cfg: Config) -> None:
    """Join the process group of ``cfg.launcher`` before anything is built; gloo if there is no GPU.

    mmengine calls ``torch.cuda.set_device`` for every launcher, which fails without a GPU.
    """
    launcher = cfg.get('launcher', 'none')
    if launcher == 'none' or is_distributed():
        return
    env_cfg = cfg.get('env_cfg', {})
    for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'):
        os.environ.setdefault(name, '1')  # as mmengine does, but without a warning from every process
    set_multi_processing(**env_cfg.get('mp_cfg', {}), distributed=True)
    if launcher == 'mpi' and 'OMPI_COMM_WORLD_LOCAL_RANK' in os.environ:
        # mmengine's Runner reads its GPU from LOCAL_RANK, which Open MPI does not set.
        os.environ['LOCAL_RANK'] = os.environ['OMPI_COMM_WORLD_LOCAL_RANK']
    if torch.cuda.is_available():
        local_rank, num_gpus = int(os.environ.get('LOCAL_RANK', 0)), torch.cuda.device_count()
        if launcher == 'pytorch' and local_rank >= num_gpus:
            raise UserError(f'Process {local_rank + 1} of this node has no GPU, since only {num_gpus} are visible: run '
                            f'tools/dist_train.sh with GPUS={num_gpus}, or make more visible (CUDA_VISIBLE_DEVICES).')
        dist_cfg = dict(env_cfg.get('dist_cfg') or dict(backend='nccl'))
        dist_cfg.setdefault('timeout', _TIMEOUT)
        init_dist(launcher, **dist_cfg)
    elif launcher == 'pytorch':
        torch.distributed.init_process_group('gloo', timeout=datetime.timedelta(seconds=_TIMEOUT))
    else:
        raise UserError(f'--launcher {launcher} needs GPUs: without GPUs, use --launcher pytorch '
                        '(tools/dist_train.sh).')


def from_rank_0(find: Callable[[], Found]) -> Found:
    """Result of ``find`` on rank 0, on every rank: on network drives, rank 0's files may appear late on other nodes.

    Raises:
        UserError: ``find`` raised it on rank 0.
    """
    found: list = [None, None]
    if is_main_process():
        try:
            found = [find(), None]
        except UserError as error:
            found = [None, str(error)]
    broadcast_object_list(found)
    if found[1] is not None:
        raise UserError(found[1])
    return found[0]


def end_distributed() -> None:
    """Leave the process group, if there is one. All ranks must call this when they have finished."""
    if is_distributed():
        torch.distributed.destroy_process_group()


@MODEL_WRAPPERS.register_module()
class IncrementalDataParallel(MMDistributedDataParallel):
    """DDP over gloo: no device ids, and batch norm per process, since SyncBN needs an accelerator."""

    def __init__(self, module: nn.Module, device_ids: Optional[list] = None, **kwargs) -> None:
        del device_ids  # mmengine passes the local rank, which DDP rejects for modules on the CPU
        super().__init__(revert_sync_batchnorm(module), device_ids=None, **kwargs)
