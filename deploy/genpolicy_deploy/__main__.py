"""``python -m genpolicy_deploy``."""

import sys

from genpolicy_deploy.cli import main

if __name__ == "__main__":
    sys.exit(main())
