from .fake_browser import write_fake_browser
from .run_record import RunRecord, find_runs, read_run
from .run_report import write_report

__all__ = ['RunRecord', 'find_runs', 'read_run', 'write_fake_browser', 'write_report']
