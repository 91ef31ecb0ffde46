"""`python -m mmrl.launch ARGS` is `accelerate launch ARGS`, with torchvision mended first.

accelerate's own command imports torchvision, and stops where its operators do not load.
"""

import sys

import mmrl.torchvision_fix  # noqa: F401


def main() -> None:
    """Hand the arguments on."""
    from accelerate.commands.accelerate_cli import main as accelerate

    sys.argv = ["accelerate", "launch", *sys.argv[1:]]
    accelerate()


if __name__ == "__main__":
    main()
