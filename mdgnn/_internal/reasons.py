"""What an exception of another package means, where its own words do not say it."""

import re

# Those that speak of the code that met them, not of what was read.
ABOUT_CODE = (LookupError, AssertionError, AttributeError, NameError, StopIteration, TypeError)
OF_CODE = ("to unpack", "StopIteration")  # within words of others


def reason_of(error: BaseException) -> str:
    """Why ASE cannot read a file, in one line: its readers raise anything at all, often without a word."""
    if sentence := out_of_memory(error):
        return sentence
    text = first_line(error)
    if " " in text and not isinstance(error, ABOUT_CODE) and not any(words in text for words in OF_CODE):
        return text
    told = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"ASE's reader gave up ({told}): the file is incomplete, or not of the format that ASE takes it for"


def out_of_memory(error: BaseException) -> str:
    """A sentence about memory that there was not, with how much where that is known; "" of other errors.

    NumPy and C++ raise a MemoryError, torch a RuntimeError.
    """
    text = str(error)
    if not isinstance(error, MemoryError) and not re.search("out of memory|can't allocate memory", text):
        return ""
    match = re.search(r"allocate ([\d.]+ \w+)(?:.* shape (\([\d, ]*\)))?", text)
    asked = f": {match[1]} more were asked for" if match else ""
    array = f", by an array of shape {match[2]}" if match and match[2] else ""
    advice = "fewer atoms or a shorter cutoff need less, and is the cell in the right unit?"
    return f"there is not enough memory{asked}{array}; {advice}"


def first_line(error: BaseException) -> str:
    """The first that is not empty."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")
