"""A process on a full disk; a limit on file sizes simulates it, so writing fails in the middle."""

import multiprocessing
import resource
import signal

_PATIENCE = 60  # seconds


def on_full_disk(function, size):
    """The result of `function()` in a new process whose files cannot exceed `size` bytes."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def run():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        sender.send(function())

    process = context.Process(target=run)
    process.start()
    sender.close()
    assert receiver.poll(_PATIENCE)
    result = receiver.recv()
    process.join(_PATIENCE)
    return result
