"""Options of Python for a process in which warnings are errors."""

# ASE 3.29 sets shapes of arrays, which NumPy 2.5 deprecates.
WARNINGS_AS_ERRORS = ["-W", "error", "-W", "ignore:Setting the shape on a NumPy array:DeprecationWarning"]
