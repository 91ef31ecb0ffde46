"""Let `import torchvision` work beside a torch build it was not compiled for.

A torchvision wheel built for CUDA cannot load its operator library next to a CPU build of torch;
its Python side then fails with "operator torchvision::nms does not exist", and transformers,
diffusers and open_clip fail with it. None of the operators is used here, only image transforms, so
declaring the two schemas that torchvision looks up is enough. Where torchvision loads by itself
nothing is declared: a second declaration of an operator aborts the process.

Import this module before transformers, diffusers or open_clip.
"""

import sys

import torch

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def ensure_torchvision() -> torch.library.Library | None:
    """The library that declares the missing schemas, or None where torchvision loads by itself."""
    try:
        import torchvision
    except ModuleNotFoundError:
        return None
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    else:
        return None
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(operator + SCHEMA)
    import torchvision  # noqa: F401

    return library


LIBRARY = ensure_torchvision()
