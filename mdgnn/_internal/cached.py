"""Properties that are worked out once."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

Value = TypeVar("Value")


class cached_property(Generic[Value]):  # noqa: N801  (as functools')
    """As that of functools, without the lock that it has up to Python 3.11: one of all instances and threads, which a
    fork could leave held. Threads that ask at once may each work it out; all get the value of the first that is done,
    so that no part of another, such as an address, is of what nobody holds any more."""

    def __init__(self, make: Callable[[Any], Value]):
        self.make, self.__doc__ = make, make.__doc__

    @overload
    def __get__(self, instance: None, owner: Any = None) -> "cached_property[Value]": ...
    @overload
    def __get__(self, instance: object, owner: Any = None) -> Value: ...
    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        return instance.__dict__.setdefault(self.make.__name__, self.make(instance))


class view(Generic[Value]):  # noqa: N801  (as cached_property)
    """A `cached_property` of a frozen object, which keeps it in the dict `_views`."""

    def __init__(self, make: Callable[[Any], Value]):
        self.make, self.__doc__ = make, make.__doc__

    @overload
    def __get__(self, instance: None, owner: Any = None) -> "view[Value]": ...
    @overload
    def __get__(self, instance: object, owner: Any = None) -> Value: ...
    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        views, name = instance._views, self.make.__name__
        return views[name] if name in views else views.setdefault(name, self.make(instance))
