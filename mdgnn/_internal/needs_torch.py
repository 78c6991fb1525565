"""What is said where torch is needed and not installed."""


class NeedsTorchError(ImportError):
    """In one sentence: what needs torch."""
