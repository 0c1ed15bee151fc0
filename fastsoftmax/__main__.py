"""``python -m fastsoftmax``: the same as the ``fastsoftmax`` command."""

import sys

from fastsoftmax._cli import main

sys.exit(main())
