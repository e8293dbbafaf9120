"""``python -m serein`` is the console script."""

from serein.cli import main

main()
