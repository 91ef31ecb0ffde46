"""Rewards as a service: scorers in processes of their own, asked over HTTP."""
