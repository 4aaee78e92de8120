"""`python -m ebmtrack` is the `ebmtrack` command."""

import sys

from ebmtrack.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
