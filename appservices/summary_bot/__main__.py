"""`python -m appservices.summary_bot`"""

import sys

from appservices.summary_bot.cli import main

if __name__ == "__main__":
    sys.exit(main())
