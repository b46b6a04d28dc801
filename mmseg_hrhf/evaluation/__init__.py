from .incremental_iou import IncrementalIoUMetric
from .summary import summarise, summary_markdown

__all__ = ['IncrementalIoUMetric', 'summarise', 'summary_markdown']
