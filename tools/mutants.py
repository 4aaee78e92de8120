"""Mutants: one line of the library is changed at a time, and the tests of its room must fail.

    make mutants
    python -m tools.mutants [WORD ...]      # only the mutants whose room, line or note has one of the words

Nothing is written to the tree: a process forked for each mutant imports the changed module in place of the file. torch
and the other large packages are imported once, before the forks. A mutant is killed if a test fails or takes too long;
the exit code is 1 if fewer than nine in ten are killed, if the tests fail without a mutant, or if a line is not found.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from tools.mutant_table import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[1]
LEAST_KILLED = 0.9
LIMIT_S = 600  # a mutant whose tests run longer counts as killed
PASSED, KILLED, BROKEN, TOO_LONG = 0, 1, 2, 14  # exit codes; 14: SIGALRM


class ChangedModule(importlib.abc.MetaPathFinder):
    """A finder, the first in line, that gives one module a changed source and leaves all others to the rest."""

    def __init__(self, mutant: Mutant):
        self.mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the spec of the changed module; None for every other."""
        if fullname != self.mutant.module:
            return None
        others = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in others if spec is not None), None)
        if spec is not None and spec.origin is not None:
            spec.loader = _ChangedSource(fullname, spec.origin, self.mutant)
        return spec


class _ChangedSource(importlib.machinery.SourceFileLoader):
    """A loader that compiles the changed text of a file and keeps no byte code of it."""

    def __init__(self, fullname: str, path: str, mutant: Mutant):
        super().__init__(fullname, path)
        self.mutant = mutant

    def get_code(self, fullname: str):
        """Return the code of the changed text."""
        return compile(self.mutant.change(Path(self.path).read_text(encoding="utf-8")), self.path, "exec")


def run_tests(tests: Sequence[str], mutant: Mutant | None = None) -> int:
    """Run test files in a forked process, with a mutant if one is given.

    Returns:
        PASSED, KILLED (a test failed), TOO_LONG, or BROKEN if no test ran.
    """
    child = os.fork()
    if child == 0:
        os._exit(_run_here(tests, mutant))
    _, status = os.waitpid(child, 0)
    return TOO_LONG if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _run_here(tests: Sequence[str], mutant: Mutant | None) -> int:
    """Run the tests in this process and return the exit code; what they print is dropped."""
    import pytest

    signal.alarm(LIMIT_S)
    codes = []
    try:
        if mutant is not None:
            sys.meta_path.insert(0, ChangedModule(mutant))
        with open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            for test in tests:
                file, _, words = test.partition(" -k ")
                options = ["-x", "-q", "-p", "no:cacheprovider", "--no-header", *(["-k", words] if words else [])]
                codes.append(int(pytest.main([str(ROOT / "tests" / "unit" / file), *options])))
                if codes[-1]:
                    break
    except BaseException:
        traceback.print_exc()
        return BROKEN
    return codes[-1] if codes[-1] in (PASSED, KILLED) else BROKEN


def check_lines(mutants: Sequence[Mutant]) -> list[str]:
    """Return a message for each mutant whose line is not found once in its file."""
    messages = []
    for mutant in mutants:
        parts = mutant.module.split(".")[1:]
        path = ROOT.joinpath(*parts).with_suffix(".py")
        path = path if path.is_file() else ROOT.joinpath("ebmtrack", *parts).with_suffix(".py")
        try:
            compile(mutant.change(path.read_text(encoding="utf-8")), str(path), "exec")
        except (ValueError, SyntaxError) as error:
            messages.append(str(error))
    return messages


def main(words: Sequence[str]) -> int:
    """Run the mutants and print a table; return the exit code."""
    chosen = [m for m in MUTANTS if not words or any(word in f"{m.module} {m.old} {m.new}" for word in words)]
    wrong = check_lines(chosen)
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        return 1
    os.chdir(ROOT)
    _import_large_packages()
    for tests in dict.fromkeys(mutant.tests for mutant in chosen):
        if run_tests(tests) != PASSED:
            print(f"without a mutant, these tests fail: {', '.join(tests)}", file=sys.stderr)
            return 1
    killed = 0
    print("| room | line | mutant | result | s |\n|---|---|---|---|---|", flush=True)
    for mutant in chosen:
        began = time.perf_counter()
        code = run_tests(mutant.tests, mutant)
        killed += code in (KILLED, TOO_LONG, BROKEN)
        result = {PASSED: "SURVIVED", KILLED: "killed", TOO_LONG: "killed (time)", BROKEN: "killed (import)"}[code]
        old, new = (" ".join(text.split()) for text in (mutant.old, mutant.new))
        print(f"| {mutant.room} | `{old}` | `{new}` | {result} | {time.perf_counter() - began:.0f} |", flush=True)
    print(f"\n{killed} of {len(chosen)} mutants killed ({killed / max(1, len(chosen)):.0%})")
    return 0 if killed >= LEAST_KILLED * len(chosen) else 1


def _import_large_packages() -> None:
    """Import what the tests need of others, so that each fork has it; nothing of ebmtrack."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # in forks and in the processes that tests start alike
    import cv2  # noqa: F401
    import pytest  # noqa: F401
    import torch
    import torchvision  # noqa: F401

    torch.set_num_threads(1)  # threads do not survive a fork


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
