"""Attributes that are computed when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

_Value = TypeVar("_Value", covariant=True)


class lazy(Generic[_Value]):  # noqa: N801  # a decorator
    """An attribute that is computed when it is first asked for, and kept in the instance's dictionary.

    Unlike `functools.cached_property` of Python 3.11 it has no lock, which all instances of a class would share, and
    which a forked process inherits in whatever state it is. Two threads may both compute a value; one of them stays.
    """

    def __init__(self, function: Callable[[Any], _Value]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> lazy[_Value]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> _Value: ...
    def __get__(self, instance: object | None, owner: type) -> lazy[_Value] | _Value:
        if instance is None:
            return self
        # Python looks into an instance's dictionary first, so this is called once
        value = instance.__dict__[self._name] = self._function(instance)
        return value
