"""Finding a handler: ``module.function`` below the code directory, loaded once (FC 5.3, 4.5)."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from .results import LoadError


class Loader:
    """Loads modules of the function; a module that failed to load is tried again."""

    def __init__(self, code_path: str) -> None:
        self._code_path = code_path
        self._modules: dict[str, ModuleType] = {}

    def load(self, handler: str) -> Callable[..., Any]:
        """The callable that ``handler`` names. ``LoadError``: with FC's type and text."""
        module_name, dot, name = handler.rpartition(".")
        if not dot or not module_name or not name:
            raise LoadError("InvalidHandleName", f"Invalid handler '{handler}'")
        module = self._modules.get(module_name)
        if module is None:
            module = self._modules[module_name] = self._import(module_name)
        found = getattr(module, name, None)
        if not callable(found):
            raise LoadError(
                "HandlerNotFound",
                f"Handler '{name}' is missing on module '{module_name}'",
            )
        return found  # type: ignore[no-any-return]

    def _import(self, name: str) -> ModuleType:
        try:
            return self._module(name.replace("/", "."), name)
        except SyntaxError as error:
            raise LoadError(
                "UserCodeSyntaxError", f"Syntax error in module '{name}'", error
            ) from error
        except ImportError as error:
            raise LoadError(
                "ImportModuleError", f"Unable to import module '{name}'", error
            ) from error
        except Exception as error:
            raise LoadError(
                "UserCodeError", f"Module initialization error: '{error}'", error
            ) from error

    def _module(self, dotted: str, name: str) -> ModuleType:
        loaded = sys.modules.get(dotted)
        if loaded is None or (getattr(loaded, "__file__", None) or "").startswith(self._code_path):
            return importlib.import_module(dotted)
        # The runtime itself has loaded a standard module of this name; the function's own file
        # goes before it, without taking its place for everybody else.
        path = os.path.join(self._code_path, name.replace(".", "/") + ".py")
        spec = importlib.util.spec_from_file_location(dotted, path)
        if spec is None or spec.loader is None or not os.path.exists(path):
            raise ModuleNotFoundError(f"No module named '{dotted}'")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
