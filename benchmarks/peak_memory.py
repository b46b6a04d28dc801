"""Peak memory of tensors during a piece of work."""
from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Callable, Union

import torch
from torch.profiler import ProfilerActivity, profile


def peak_bytes(work: Callable[[], object], device: Union[str, torch.device] = 'cpu') -> int:
    """Peak bytes allocated by ``work`` beyond those allocated before, including buffers of kernels."""
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'trace.json'
        recorded.export_chrome_trace(str(path))
        events = [event for event in json.loads(path.read_text())['traceEvents'] if event.get('name') == '[memory]']
    live = peak = 0
    for event in sorted(events, key=lambda event: event['ts']):
        live += event['args']['Bytes']
        peak = max(peak, live)
    return peak
