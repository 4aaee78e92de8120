"""The command line: `ebmtrack VERB OPTIONS`.

To add a verb, write a dataclass with a method `run` in a module beside this one (see options.py), and name it in
`VERBS`.
"""

from __future__ import annotations

import errno
import io
import os
import re
import select
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import make_dataclass
from functools import reduce
from itertools import takewhile
from operator import or_
from typing import Annotated, Any, cast

import tyro

from ebmtrack import share_the_cores
from ebmtrack._version import __version__
from ebmtrack.commands.data import CutOuts, Datasets, Pack, Paths
from ebmtrack.commands.detect import Detect
from ebmtrack.commands.evaluate import Evaluate, ExportResults, Report, Stress
from ebmtrack.commands.interop import Convert, ExportNetwork, Pytracking, Vot
from ebmtrack.commands.live import Webcam
from ebmtrack.commands.options import Group, Verb
from ebmtrack.commands.regress import Regress
from ebmtrack.commands.study import Study
from ebmtrack.commands.track import Bench, Demo, Track
from ebmtrack.commands.train import Train
from ebmtrack.errors import EXTRAS, ConfigError, EbmtrackError, missing_extra
from ebmtrack.names import match_spelling, unknown

# What a user can do something about.
REFUSED = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.ENAMETOOLONG, errno.ELOOP),
    *(errno.EEXIST, errno.EISDIR, errno.ENOTDIR),  # a file where a folder is to be, or the other way round
)
ABOUT = "Track any object in a video by climbing an energy."
Verbs = Mapping[str, Callable[..., Verb] | type[Group]]
VERBS: Verbs = {
    "track": Track,
    "webcam": Webcam,
    "demo": Demo,
    "bench": Bench,
    "convert": Convert,
    "train": Train,
    "eval": Evaluate,
    "stress": Stress,
    "report": Report,
    "export": ExportNetwork,
    "export-results": ExportResults,
    "datasets": Datasets,
    "paths": Paths,
    "pack": Pack,
    "cut-outs": CutOuts,
    "study": Study,
    "regress": Regress,
    "detect": Detect,
    "pytracking": Pytracking,
    "vot": Vot,
}
# The folder of results has another name where it is written than where it is read.
MISTAKEN = {("eval", "--results"): "--out", ("report", "--out"): "--results", ("study intervals", "--out"): "--results"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (that of the process by default) and return its exit code.

    An EbmtrackError is one line on stderr and code 2, as is a wrong option; Ctrl-C is code 130.
    """
    share_the_cores()
    _replace_closed_streams()
    _print_any_name()
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv in (["--version"], ["-V"]):
        print(f"ebmtrack {__version__}")
        return 0
    try:
        with warnings.catch_warnings():
            vars(warnings)["showwarning"] = _show_in_one_line
            code = parse(argv or ["--help"]).run()
        sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_has_gone():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left in the buffer
        return 141
    except EbmtrackError as error:
        print(f"ebmtrack: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS:
            raise
        print(f"ebmtrack: error: {missing_extra(module, f'`ebmtrack {argv[0]}`')}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.filename is None or error.errno not in REFUSED:
            raise
        print(f"ebmtrack: error: {error.filename2 or error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ebmtrack: interrupted", file=sys.stderr)
        return 130
    except SystemExit as leave:  # tyro leaves in this way after --help (0), completions (None) and wrong options (2)
        return leave.code if isinstance(leave.code, int) else 0 if leave.code is None else 2
    return code or 0


def parse(argv: Sequence[str]) -> Verb:
    """Return the verb with the options of a command line; on a wrong one tyro prints why and raises SystemExit.

    Raises:
        ConfigError: For an unknown verb, for former spellings of verbs, and for other words that tyro cannot explain.
    """
    if argv[:1] == ["export-network"]:
        raise ConfigError("the verb is `ebmtrack export` now")
    if argv[:1] == ["export"] and {"--dataset", "--layout"} & _options(argv):
        raise ConfigError("did you mean `ebmtrack export-results`?")
    _check_boxes(argv)
    argv = [_expand_home(word) for word in argv]
    return _parse(argv, VERBS, "ebmtrack", ABOUT)


def _parse(argv: Sequence[str], verbs: Verbs, program: str, about: str) -> Verb:
    """Return one of the verbs with its options; tyro sees its options alone, and so proposes none of other verbs."""
    first, config = argv[0] if argv else "--help", (tyro.conf.FlagCreatePairsOff,)
    if first.startswith("--tyro-"):  # completion for shells
        return tyro.cli(_union(verbs), prog=program, args=argv, config=config)
    if first in ("-h", "--help"):
        choices: dict[str, Callable] = {**verbs}
        return tyro.extras.subcommand_cli_from_dict(
            choices, prog=program, description=about, args=[first, *argv[1:]], config=config
        )
    if first.startswith("-"):
        raise ConfigError(f"{first}: a verb comes first; see `{program} --help`")
    if (name := match_spelling(first, verbs)) not in verbs:
        raise unknown(f"{program} verb", first, verbs)
    verb, program = verbs[name], f"{program} {name}"
    if isinstance(verb, type) and issubclass(verb, Group):
        return _parse(argv[1:], verb.verbs, program, verb.__doc__ or "")
    for option in _options(argv[1:]):
        if right := MISTAKEN.get((program.removeprefix("ebmtrack "), option)):
            raise ConfigError(f"`{program}` has no {option}: there the folder of results is {right} FOLDER")
    return cast(Verb, tyro.cli(verb, prog=program, args=argv[1:], config=config))


def _union(verbs: Verbs) -> Any:
    """Return the verbs, with those of groups below them, as one type for tyro."""
    kinds = []
    for name, verb in verbs.items():
        if isinstance(verb, type) and issubclass(verb, Group):
            below: Any = Annotated[_union(verb.verbs), tyro.conf.OmitSubcommandPrefixes]
            verb = make_dataclass(verb.__name__, [("verb", below)])
        kinds.append(Annotated[verb, tyro.conf.subcommand(name)])
    return reduce(or_, kinds)


def _options(argv: Sequence[str]) -> set[str]:
    """Return the words of a command line without the values that `=` gives them."""
    return {word.partition("=")[0] for word in argv}


def _expand_home(word: str) -> str:
    """Return a word with ~ at its beginning as the home folder, also after `=` and @, where shells leave it.

    >>> _expand_home("--boxes=~/x.csv") == "--boxes=" + os.path.expanduser("~/x.csv")
    True
    """
    names = re.match(r"([\w.:-]+[=@])*", word)
    at = names.end() if names else 0
    return word[:at] + os.path.expanduser(word[at:])


def _check_boxes(argv: Sequence[str]) -> None:
    """Raise ConfigError for --init 80 60 60 44, whose last numbers would be words that nobody asked for."""
    for place, word in enumerate(argv):
        option, sign, value = word.partition("=")
        words = [*[value] * bool(sign), *argv[place + 1 :]]
        numbers = list(takewhile(re.compile(r"-?\d+(\.\d*)?").fullmatch, (each.strip("()[],") for each in words)))
        if option == "--init" and len(numbers) > 1:
            box = ",".join(numbers[:4]) if len(numbers) > 3 else "x,y,w,h"
            raise ConfigError(f"a box is one word without blanks: --init {box}; see `ebmtrack {argv[0]} --help`")


def _replace_closed_streams() -> None:
    """Let what is printed go nowhere if the shell closed stdout or stderr (`>&-`)."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")


def _print_any_name() -> None:
    """Let letters of file names that the terminal does not know be printed as escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _show_in_one_line(message: Warning | str, *_: object) -> None:
    """Print a warning as one line on stderr, without the line of code that gave it."""
    print(f"ebmtrack: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _reader_has_gone() -> bool:
    """Return whether nobody reads our output any more, as after `| head`; False on systems that cannot tell."""
    if not hasattr(select, "poll"):
        return False
    output = select.poll()
    output.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in output.poll(0))
