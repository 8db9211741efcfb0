"""``python -m sage``."""

import sys

from sage.cli.main import main

sys.exit(main())
