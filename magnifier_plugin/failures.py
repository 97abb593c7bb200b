"""Run-time errors that a user can cause, as one line."""

import errno

# What torch reports as a plain RuntimeError.
_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
_WORKER = ("DataLoader worker (pid", "worker process was killed")


def describe_failure(error: BaseException) -> str:
    """What a user can do something about, in one line; "" for an error of the program.

    Args:
        error: that ended a run: a full disk, a missing or damaged file, a value that does not fit,
            too little memory, a killed worker process.
    """
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if "Original Traceback" in text:  # torch puts a worker's whole traceback into the message
        text = text.strip().splitlines()[-1].partition(": ")[2]
    text = " ".join(text.split())
    if isinstance(error, RuntimeError):
        if any(word in text for word in _MEMORY):
            return f"{text}; lower train.batch_size or test.batch_size"
        if any(word in text for word in _WORKER):
            return f"{text}; often memory ran out: lower data.workers"
        return text if type(error) is not RuntimeError and _is_ours(error) else ""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"{text}; free some space"
    return text if isinstance(error, (OSError, ValueError, FloatingPointError)) else ""


def _is_ours(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] == __name__.partition(".")[0]
