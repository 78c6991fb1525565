"""Training: configuration, references, losses, the run with Lightning, evaluation.

It needs the extra `train`; nothing here is imported by `import mdgnn`.
"""
