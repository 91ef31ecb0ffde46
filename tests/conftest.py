"""Shape and type checks on every annotated function while tests run."""

import os
import sys
from types import ModuleType

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

os.environ.setdefault("HF_HUB_OFFLINE", "1")

checks = ModuleType("mmrl_test_checks")
checks.check = beartype(
    conf=BeartypeConf(is_pep484_tower=True)
)  # an int is a float, as for pyright
sys.modules["mmrl_test_checks"] = checks
install_import_hook(["mmrl", "rewards", "pipelines"], "mmrl_test_checks.check")

import mmrl.torchvision_fix  # noqa: E402, F401
