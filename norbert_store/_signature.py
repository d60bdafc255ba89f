"""Signatures that show every option, and errors that name the one that was probably meant.

A public function hands options on to functions below it as ``**options``, typed as a `TypedDict`. Type checkers follow
that; `spelled_out` lets people see it, too: in ``help()``, in notebooks and in documentation.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from functools import wraps
from itertools import islice
from typing import Any, TypeVar, cast

import numpy as np

F = TypeVar("F", bound=Callable[..., Any])

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_MOST_NAMES_COMPARED = 10_000
_LONGEST_COMPARED = 200


def spelled_out(*below: Callable[..., Any], without: Sequence[str] = ()) -> Callable[[F], F]:
    """Show a function's options one by one, and check their names when it is called.

    Parameters
    ----------
    *below : callable
        Functions whose keyword-only parameters ``**options`` stands for, with their defaults; the function's own
        parameters go before those of the same name.
    without : sequence of str
        Those of them that the function sets by itself.

    Returns
    -------
    callable
        A decorator, of functions, methods and classes. What it decorates raises a `TypeError` on an option that it
        doesn't have, and where an option is neither True nor False whose default is one of them: "no" would be true.

    Examples
    --------
    >>> def encode(*, quality: float = 80.0, effort: int = 3) -> None: ...
    >>> @spelled_out(encode)
    ... def create(location: str, **options: Any) -> None: ...
    >>> inspect.signature(create)
    <Signature (location: 'str', *, quality: 'float' = 80.0, effort: 'int' = 3) -> 'None'>
    >>> create("x.zarr", qualty=90)
    Traceback (most recent call last):
    TypeError: create() has no option 'qualty'; did you mean 'quality'?
    """

    def decorate(function: F) -> F:
        if isinstance(function, type):
            function.__init__ = decorate(function.__init__)  # type: ignore[misc]
            return function
        signature = _with_options(inspect.signature(function), below, without)
        named = {name: parameter for name, parameter in signature.parameters.items() if parameter.kind in _NAMED}

        @wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            for name, value in kwargs.items():
                if name not in named:
                    raise TypeError(
                        f"{_public_name(function, args)}() has no option {name!r}{did_you_mean(name, named)}"
                    )
                if isinstance(named[name].default, bool) and not isinstance(value, bool | np.bool_):
                    raise TypeError(f"{_public_name(function, args)}(): {name} must be True or False, found {value!r}")
            return function(*args, **kwargs)

        checked.__signature__ = signature  # type: ignore[attr-defined]
        return cast(F, checked)

    return decorate


def _public_name(function: Callable[..., Any], args: Sequence[Any]) -> str:
    """Name a function as who calls it knows it: a method by the class of its object, a constructor by its class."""
    if function.__qualname__ == function.__name__ or "<locals>" in function.__qualname__:
        return function.__name__
    owner = type(args[0]).__name__
    return owner if function.__name__ == "__init__" else f"{owner}.{function.__name__}"


def check_callback(name: str, function: Callable[..., Any] | None) -> None:
    """Check what is to be called later, before anything is done.

    Raises
    ------
    TypeError
        If it can't be called.
    """
    if function is not None and not callable(function):
        raise TypeError(f"{name} must be a function, found {function!r}")


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Give the end of an error's message: the closest of some names, or nothing where none is close."""
    # comparing long ones takes long, and nobody mistypes them
    short = [one for one in islice(names, _MOST_NAMES_COMPARED) if len(one) <= _LONGEST_COMPARED]
    close = get_close_matches(name, short, n=1) if len(name) <= _LONGEST_COMPARED else []
    return f"; did you mean {close[0]!r}?" if close else ""


def _with_options(
    signature: inspect.Signature, below: Iterable[Callable[..., Any]], without: Sequence[str]
) -> inspect.Signature:
    """Replace ``**options`` by the keyword-only parameters of the functions below."""
    parameters = {
        name: parameter
        for name, parameter in signature.parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    for function in below:
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name not in without:
                parameters.setdefault(name, parameter)
    return signature.replace(parameters=list(parameters.values()))
