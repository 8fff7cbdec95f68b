"""`python -m signver` is the command `signver`, where no script of that name is on the path."""

from __future__ import annotations

import sys

from signver.command import main

sys.exit(main())
