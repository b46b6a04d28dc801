"""What mmengine keeps of a Runner for the life of the process."""
from __future__ import annotations

from mmengine.runner import Runner


def release(runner: Runner) -> None:
    """Close the log file of a Runner that has ended, and let its logger, message hub and visualizer go.

    mmengine holds them by name, one set per Runner. Over many learning steps they would add up: open files, the
    history of every logged value, pictures.
    """
    for handler in list(runner.logger.handlers):
        runner.logger.removeHandler(handler)
        handler.close()
    for thing in (runner.logger, runner.message_hub, runner.visualizer):
        type(thing)._instance_dict.pop(thing.instance_name, None)
