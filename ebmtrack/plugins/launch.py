"""Run a script of pytracking with the hook and no .pth file: python -m ebmtrack.plugins.launch SCRIPT ..."""

from __future__ import annotations

import sys

from ebmtrack.errors import EbmtrackError
from ebmtrack.plugins.pytracking_setup import launch


def main() -> int:
    """Run the script; return 2, with a line on stderr, if none is given or ebmtrack refuses."""
    if len(sys.argv) < 2:
        print("usage: python -m ebmtrack.plugins.launch SCRIPT [ARGUMENTS]", file=sys.stderr)
        return 2
    try:
        launch(sys.argv[1], sys.argv[2:])
    except EbmtrackError as error:
        print(f"ebmtrack: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
