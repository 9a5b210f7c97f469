"""Entry of the Python runtime: loaded by path in the zygote, run in the isolated instance.

Everything here and beside it uses the standard library alone, works on Python 3.8 and later, and
is written for one process that belongs to one function. The siblings form the package
``_eventd_runtime``, so that no module name of a function can meet them. Importing has no effect but
on ``sys.modules``: no thread, no descriptor, no patch; those come with ``serve``.
"""

from __future__ import annotations

import importlib
import os
import sys
import types

PACKAGE = "_eventd_runtime"


def _load_siblings() -> types.ModuleType:
    package = types.ModuleType(PACKAGE)
    package.__path__ = [os.path.dirname(os.path.abspath(__file__))]
    sys.modules[PACKAGE] = package
    return importlib.import_module(PACKAGE + ".serving")


_serving = sys.modules.get(PACKAGE + ".serving") or _load_siblings()


def rehearse(directory):  # type: ignore[no-untyped-def]
    """For a zygote, before its first fork: see ``rehearsal.py``."""
    importlib.import_module(PACKAGE + ".rehearsal").rehearse(directory)


def serve(sock, code_path):  # type: ignore[no-untyped-def]
    """Serve calls from ``sock`` with the code below ``code_path`` until told to stop; no return.

    Takes over descriptors 1 and 2, ``sys.stdout``, ``sys.stderr``, the root logger and
    ``os.environ``. Expects to be alone in its process, with ``SIGCHLD`` at its default.
    """
    _serving.Server(sock, code_path).run()
    os._exit(0)
