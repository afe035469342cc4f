"""`python -m flightdeck.cli`."""

import sys

from flightdeck.cli.main import main

sys.exit(main())
