"""Ends a finished Runner: its data workers, and what mmengine keeps of it for the life of the process."""
from __future__ import annotations

from mmengine.runner import BaseLoop, Runner


def release(runner: Runner) -> None:
    """End the data workers of a Runner, close its log file, and let its logger, message hub and visualizer go.

    mmengine holds the last three by name, one set per Runner. Over many learning steps they would add up: open files,
    the history of every logged value, pictures.
    """
    end_data_workers(runner)
    runner.visualizer.close()  # of a Runner that did not come to its end: TensorBoard's thread and file
    for handler in list(runner.logger.handlers):
        runner.logger.removeHandler(handler)
        handler.close()
    for thing in (runner.logger, runner.message_hub, runner.visualizer):
        type(thing)._instance_dict.pop(thing.instance_name, None)


def end_data_workers(runner: Runner) -> None:
    """Let go of the loops' iterators, which ends their workers at once.

    Runner and loops refer to each other. Left to the garbage collector, the queues of an iterator may be closed before
    it has told its workers to end, and torch then waits 5 s for each of them.
    """
    for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
        if not isinstance(loop, BaseLoop):  # the config of a loop that was never built
            continue
        if getattr(loop, 'dataloader_iterator', None) is not None:  # of an iteration-based loop
            loop.dataloader_iterator = None
        loop.dataloader._iterator = None  # of persistent workers
