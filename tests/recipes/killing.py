"""Runs a handler and kills its process, by SIGKILL, before a chosen statement of the project's code.

As a program: each line of its input is one attempt, as JSON; a child is forked for it, which ends
as a service would that is killed. It answers, a line each, with how the child ended.

    {"event": {…}, "kill_at": 7}    →    {"killed": true, "steps": 7, "error": ""}

A step is a statement of the project's code, when it is reached for the first time in the attempt.
"""

import ast
import builtins
import contextlib
import importlib
import json
import logging
import os
import signal
import subprocess
import sys
from importlib.machinery import PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any

from fasthook.dispatch import registry
from fasthook.handling import Handler
from fasthook.testing import make_event, run_handler


class Attempts:
    """Attempts of one handler of a project, each in a process of its own."""

    def __init__(
        self, folder: Path, environment: dict[str, str], handler: str, *files: str
    ) -> None:
        """`files`: those of the project whose lines are steps."""
        self._process = subprocess.Popen(
            [sys.executable, __file__, handler, *files],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, event: dict[str, Any], kill_at: int = 0) -> dict[str, Any]:
        """One attempt; 0: it is not killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"event": event, "kill_at": kill_at}) + "\n")
        self._process.stdin.flush()
        result: dict[str, Any] = json.loads(self._process.stdout.readline())
        return result

    def done(self, event: dict[str, Any]) -> int:
        """An attempt that has to succeed; how many steps it took."""
        result = self.run(event)
        assert not result["killed"], result
        assert not result["error"], result["error"]
        return int(result["steps"])

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()


# --- in the process that forks --------------------------------------------------------------------


class _Steps(ast.NodeTransformer):
    """Puts a call before each statement of each function."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        is_code = isinstance(node, ast.stmt | ast.ExceptHandler | ast.match_case)
        for name in ("body", "orelse", "finalbody") if is_code else ():
            block = getattr(node, name, [])
            if block and not isinstance(node, ast.ClassDef):
                setattr(node, name, [each for old in block for each in (_call(old), old)])
        return node


def _call(before: ast.stmt) -> ast.stmt:
    return ast.parse(f"__step__({before.lineno})").body[0]


class _Loader(SourceFileLoader):
    """Loads a module with a step before each statement of its functions."""

    def get_code(self, fullname: str) -> Any:
        path = self.get_filename(fullname)
        tree = _Steps().visit(ast.parse(self.get_data(path), path))
        return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)


class _Finder(PathFinder):
    files: tuple[str, ...] = ()

    @classmethod
    def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> Any:
        spec = super().find_spec(fullname, path, target)
        if spec is None or not str(spec.origin).endswith(cls.files):
            return None
        return spec_from_file_location(
            fullname, spec.origin, loader=_Loader(fullname, str(spec.origin))
        )


def _count_steps(kill_at: int) -> set[tuple[str, int]]:
    """Have steps counted from now on, and the process killed at one of them."""
    seen: set[tuple[str, int]] = set()

    def step(line: int) -> None:
        seen.add((sys._getframe(1).f_code.co_filename, line))
        if len(seen) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    builtins.__step__ = step  # type: ignore[attr-defined]
    return seen


def _attempt(handler: Any, event: Any, kill_at: int, answer: int) -> None:
    seen, error, known = _count_steps(kill_at), "", set(sys.modules)
    try:
        run_handler(handler, event)
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    imported = [name for name in sys.modules if name not in known]
    result = {"killed": False, "steps": len(seen), "error": error, "imported": imported}
    os.write(answer, json.dumps(result).encode())


def _main(name: str, *files: str) -> None:
    _Finder.files = files
    sys.meta_path.insert(0, _Finder)
    _count_steps(0)
    logging.basicConfig(level=logging.ERROR)
    handler = registry.find(name)
    assert isinstance(handler, Handler)
    for line in sys.stdin:
        order = json.loads(line)
        given = order["event"]
        event = make_event(handler, given.pop("payload"), **given)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            _attempt(handler, event, order["kill_at"], write)
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            said = pipe.read()
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            said = json.dumps({"killed": True, "steps": order["kill_at"], "error": ""}).encode()
        else:  # so that those that follow need not import it
            for module in json.loads(said)["imported"]:
                with contextlib.suppress(ImportError):
                    importlib.import_module(module)
        print(said.decode(), flush=True)  # noqa: T201


if __name__ == "__main__":
    _main(*sys.argv[1:])
