"""Ends a finished Runner: its data workers, and what mmengine keeps of it for the life of the process."""
from __future__ import annotations

from mmengine.runner import BaseLoop, Runner


def release(runner: Runner) -> None:
    """End the data workers of a Runner, close its log file, and let its logger, message hub and visualizer go.

    mmengine holds the last three by name, one set per Runner. Over many learning steps they would add up: open files,
    the history of every logged value, pictures.
    """
    end_data_workers(runner)
    # The last of them are missing where the Runner could not be built.
    logger, message_hub, visualizer = (getattr(runner, name, None) for name in ('logger', 'message_hub', 'visualizer'))
    if visualizer is not None:
        visualizer.close()  # of a Runner that did not come to its end: TensorBoard's thread and file
    if logger is not None:
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
    for thing in filter(None, (logger, message_hub, visualizer)):
        for kind in type(thing).__mro__:  # a visualizer is held by its base class, too
            vars(kind).get('_instance_dict', {}).pop(thing.instance_name, None)


def end_data_workers(runner: Runner) -> None:
    """Let go of the loops' iterators, which ends their workers at once.

    Runner and loops refer to each other. Left to the garbage collector, the queues of an iterator may be closed before
    it has told its workers to end, and torch then waits 5 s for each of them.
    """
    for name in ('_train_loop', '_val_loop', '_test_loop'):
        loop = getattr(runner, name, None)
        if not isinstance(loop, BaseLoop):  # the config of a loop that was never built
            continue
        if getattr(loop, 'dataloader_iterator', None) is not None:  # of an iteration-based loop
            loop.dataloader_iterator = None
        loop.dataloader._iterator = None  # of persistent workers
