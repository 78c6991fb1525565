"""Names of a package that are imported when they are first asked for."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def lazy_names(package: str, home: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package; its modules are there too, as where they have been imported.

    Parameters
    ----------
    package : str
    home : mapping
        By name, the module that has it; "package.name" is that module.
    """

    def __getattr__(name: str) -> Any:  # noqa: N807
        module = home.get(name, f"{package}.{name}")
        if name not in home and (name.startswith("_") or find_spec(module) is None):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        imported = import_module(module)
        return imported if module == f"{package}.{name}" else getattr(imported, name)

    def __dir__() -> list[str]:  # noqa: N807
        return sorted({*vars(sys.modules[package]), *home})

    return __getattr__, __dir__
