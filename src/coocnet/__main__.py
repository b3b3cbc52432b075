"""``python -m coocnet`` is the command."""

from coocnet.cli import main

main()
