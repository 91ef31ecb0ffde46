"""Align vision-language models and video diffusion models with reinforcement learning."""

__version__ = "0.1.0"
