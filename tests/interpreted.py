"""Importing this has fasthook's source interpreted, also where a compiled form stands beside it.

Compiled classes can't be patched, and tests that break something on purpose do that.
"""

import importlib.machinery
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "fasthook"
_LOADER = (importlib.machinery.SourceFileLoader, importlib.machinery.SOURCE_SUFFIXES)
_source_only = importlib.machinery.FileFinder.path_hook(_LOADER)


def _finder(path: str) -> importlib.machinery.FileFinder:
    if not Path(path).is_relative_to(PACKAGE):
        raise ImportError("not fasthook's")  # said to the import system: try the next one
    return _source_only(path)  # type: ignore[return-value]


sys.path_hooks.insert(0, _finder)
# Where something was imported from before, such as the plugin of pytest, the finder stands already.
for _path in [p for p in sys.path_importer_cache if Path(p).is_relative_to(PACKAGE)]:
    del sys.path_importer_cache[_path]
