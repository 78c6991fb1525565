"""What the engine cannot run."""


class UnsupportedError(TypeError):
    """A model does what the engine has no instruction for; the message names the operation and the model's line."""
