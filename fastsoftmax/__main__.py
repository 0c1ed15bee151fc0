"""``python -m fastsoftmax`` runs the ``fastsoftmax`` command."""

import sys

from fastsoftmax._command.cli import main

sys.exit(main())
