"""Checks config options against the signature of their class."""
from __future__ import annotations

import collections.abc
import difflib
import inspect
import math
from typing import Any, Iterable, Mapping, Sequence, Union, get_args, get_origin, get_type_hints

from mmengine.registry import Registry

from .errors import UserError

_NAMES = {
    float: 'a number',
    int: 'a whole number',
    str: 'a string',
    bool: 'True or False',
    dict: 'a dict',
    collections.abc.Mapping: 'a dict',
    type(None): 'None'
}


def suggest(word: Any, choices: Iterable, otherwise: str = '', cutoff: float = 0.6) -> str:
    """End of a message about a wrong name: ``": did you mean 'ratio'?"``, or ``otherwise`` if nothing is similar.

    Args:
        word: the given name.
        choices: valid names; only strings are suggested.
        otherwise: end of the sentence without a suggestion.
        cutoff: required similarity, 0 to 1 (``difflib``'s ratio).
    """
    names = [choice for choice in choices if isinstance(choice, str)]
    near = difflib.get_close_matches(str(word), names, n=1, cutoff=cutoff)
    return f': did you mean {near[0]!r}?' if near else otherwise


def check_choice(name: str, value: Any, choices: Sequence) -> None:
    """Raise ``UserError`` unless ``value`` is one of ``choices``; suggests the closest."""
    if not any(value == choice and type(value) is type(choice) for choice in choices):
        hint = suggest(value, choices, otherwise='.')
        raise UserError(f'{name}={value!r} is not one of {", ".join(map(repr, choices))}{hint}')


def check_names(owner: str, options: Iterable[str], known: Iterable[str]) -> None:
    """Raise ``UserError`` for an option that ``owner`` does not have; suggests the closest."""
    known = sorted(known)
    for key in options:
        if key not in known:
            raise UserError(f'{owner} has no option {key!r}' + suggest(key, known, f'; its options are {known}.'))


def check_types(prefix: str, options: Mapping[str, Any], annotations: Mapping[str, Any]) -> None:
    """Raise ``UserError`` for an option whose value does not have the annotated type.

    Args:
        prefix: owner of the options, such as ``'scenario'``.
        options: values by name, as in a config: lists may stand for tuples.
        annotations: types by name; options without one are not checked.
    """
    for key, value in options.items():
        wanted = annotations.get(key, Any)
        if not _fits(value, wanted):
            raise UserError(f'{prefix}.{key}={value!r} must be {_describe(wanted)}.')


def check_registered(name: str, options: Any, registry: Registry, base: type, example: str) -> type:
    """The class that a config names.

    Args:
        name: of the config, such as ``'replay.inversion'``.
        options: the config, ``dict(type=..., ...)``.
        registry: where its ``type`` is looked up.
        base: what the class must derive from.
        example: a good config, for messages.
    Raises:
        UserError: no such class, an option that it does not take or lacks, or a value of the wrong type; names it.
    """
    if not isinstance(options, collections.abc.Mapping) or 'type' not in options:
        raise UserError(f'{name}={options!r} must be a dict with a type, such as {example}.')
    kind = options['type']
    taker = registry.get(kind) if isinstance(kind, str) else kind
    if not (inspect.isclass(taker) and issubclass(taker, base)):
        known = {key for key, value in registry.module_dict.items() if inspect.isclass(value)
                 and issubclass(value, base)}
        check_choice(f'{name}.type', kind, sorted(known))
    annotations = parameters(taker)
    check_names(name, options, {*annotations, 'type'})
    check_types(name, options, annotations)
    for key, value in inspect.signature(taker).parameters.items():
        required = value.default is value.empty and value.kind not in (value.VAR_POSITIONAL, value.VAR_KEYWORD)
        if required and key not in options:
            raise UserError(f'{name} lacks {key}, which {taker.__name__} has no default for: give {example}.')
    return taker


def parameters(taker: type, base: type = object) -> dict[str, Any]:
    """Types of a class's options by name, including those of its parents up to ``base``."""
    found: dict[str, Any] = {}
    for parent in reversed(taker.__mro__[:taker.__mro__.index(base) + (base is not object)]):
        if '__init__' in vars(parent):
            hints = get_type_hints(parent.__init__)
            for name, parameter in inspect.signature(parent.__init__).parameters.items():
                if name != 'self' and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                    found[name] = hints.get(name, Any)
    return found


def _fits(value: Any, wanted: Any) -> bool:
    origin, args = get_origin(wanted), get_args(wanted)
    if origin is Union:
        return any(_fits(value, choice) for choice in args)
    if origin is tuple and args[1:] != (..., ):
        return isinstance(value, (list, tuple)) and len(value) == len(args) and all(map(_fits, value, args))
    if origin in (list, tuple, collections.abc.Sequence):
        return isinstance(value, (list, tuple)) and all(_fits(item, args[0]) for item in value)
    if wanted is dict or origin in (dict, collections.abc.Mapping):
        return isinstance(value, collections.abc.Mapping)
    if wanted in (int, float):
        numbers = (int, float) if wanted is float else int
        return isinstance(value, numbers) and not isinstance(value, bool) and not math.isnan(value)
    return wanted not in _NAMES or isinstance(value, wanted)


def _describe(wanted: Any) -> str:
    origin, args = get_origin(wanted), get_args(wanted)
    if origin is Union:
        return ' or '.join(_describe(choice) for choice in args if choice is not type(None)) + (
            ', or None' if type(None) in args else '')
    if origin is tuple and args[1:] != (..., ):
        return f'{len(args)} values, {", ".join(map(_describe, args))}'
    if origin in (list, tuple, collections.abc.Sequence):
        return f'a list, each item {_describe(args[0])}'
    return _NAMES.get(origin or wanted, getattr(wanted, '__name__', str(wanted)))
