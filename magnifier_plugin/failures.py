"""One-line messages for run-time errors that the user can fix."""

import errno

# Parts of the messages of plain RuntimeErrors raised by torch.
_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
_WORKER = ("DataLoader worker (pid", "worker process was killed")


def describe_failure(error: BaseException) -> str:
    """A one-line message for an error that the user can fix; "" for a bug in the program.

    Args:
        error: the exception that ended a run. The user can fix a full disk, a missing or damaged
            file, an invalid value, too little memory and a killed worker process.
    """
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if "Original Traceback" in text:  # torch puts the worker's traceback into the message
        text = text.strip().splitlines()[-1].partition(": ")[2]
    text = " ".join(text.split())
    if isinstance(error, RuntimeError):
        if any(word in text for word in _MEMORY):
            return f"{text}; lower train.batch_size or test.batch_size"
        if any(word in text for word in _WORKER):
            return f"{text}; the usual cause is too little memory: lower data.workers"
        return text if type(error) is not RuntimeError and _is_ours(error) else ""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"{text}; free some space"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS):
        return f"{text}; change its permissions, or choose another path"
    return text if isinstance(error, (OSError, ValueError, FloatingPointError)) else ""


def _is_ours(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] == __name__.partition(".")[0]
