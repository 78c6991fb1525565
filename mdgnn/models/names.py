"""Names of models in files and configurations: "PaiNN" for one of ours, "package.module:Class" for any other."""

import sys
from collections.abc import Callable

from mdgnn import models
from mdgnn._internal.user_modules import import_named, no_module
from mdgnn.potential import Potential


class UntrustedError(ValueError):
    """A name of a class in a module that has not been imported, and must not be."""


def name_of(kind: type) -> str:
    """The name of a class of models.

    Raises
    ------
    TypeError
        If it is no `Potential`, or stands within a function, where no name finds it.
    """
    if not issubclass(kind, Potential):
        raise TypeError(f"expected a model that derives from mdgnn.Potential, got {kind.__name__}")
    if getattr(models, kind.__name__, None) is kind:
        return str(kind.__name__)
    if "." in kind.__qualname__:
        raise TypeError(f"expected a model whose class stands in a module, got {kind.__module__}.{kind.__qualname__}")
    return f"{kind.__module__}:{kind.__name__}"


def class_of(name: str, may_import: Callable[[str], bool]) -> type[Potential]:
    """The class of a name.

    Parameters
    ----------
    name : str
    may_import : function
        Whether a module may run: if it has not been imported, or makes its classes when it is asked for them.

    Raises
    ------
    UntrustedError
        If it may not, or for a class of another program's ``__main__``.
    ValueError
        If there is no such class.
    """
    module, colon, kind = name.partition(":")
    if not colon:
        if name not in models.__all__:
            ours = f"{', '.join(models.__all__)}, and others as 'package.module:Class'"
            raise ValueError(f"holds a {name!r}, this mdgnn knows {ours}")
        module, kind = models.__name__, name
    if not all(part.isidentifier() for part in [*module.split("."), kind]):
        raise ValueError(f"holds a {name!r}, and a model's name is of the form 'package.module:Class'")
    imported = sys.modules.get(module)
    if imported is None:
        if not may_import(module):
            raise UntrustedError(
                f"holds a {name!r}, and importing a module runs it: if you trust it, import {module} first, or name it "
                f"in load(..., trusted=[{module!r}]), mdgnn evaluate --trust, or [model] trusted for mdgnn train"
            )
        try:
            imported = import_named(module)
        except ModuleNotFoundError as error:
            raise ValueError(f"holds a {name!r}, and {no_module(error)}") from None
    # A module's own __getattr__ may import others.
    cls = getattr(imported, kind, None) if may_import(module) else vars(imported).get(kind)
    if cls is None and module == "__main__":
        raise UntrustedError(f"holds a {name!r}, whose class stands in the program that saved it: move it to a module")
    if cls is None:
        raise ValueError(f"holds a {name!r}, and {module} has no class {kind!r}")
    if not (isinstance(cls, type) and issubclass(cls, Potential) and cls is not Potential):
        raise ValueError(f"holds a {name!r}, which is no Potential that is a model")
    return cls
