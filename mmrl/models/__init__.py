"""One small adapter a model family."""

import mmrl.torchvision_fix  # noqa: F401  # before any adapter imports transformers or diffusers
