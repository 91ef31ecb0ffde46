"""`python -m mmrl` and `accelerate launch ... mmrl/__main__.py` are the `mmrl` command."""

from mmrl.cli import main

main()
