"""Errors of runs that write a folder: dynamics, relaxation, training."""


class RunError(RuntimeError):
    """A run that cannot begin or go on; one sentence says why."""


class InterruptedRunError(RunError):
    """A signal ended the run in good order; the message says how to go on.

    Parameters
    ----------
    signum : int
    message : str
    """

    def __init__(self, signum: int, message: str):
        super().__init__(message)
        self.signum = signum
