"""How the models in assets/ were trained; `python -m pipelines.tiny.NAME` does it again."""
