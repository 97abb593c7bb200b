"""The log of a run reaches standard output and its file, and everything is restored."""

import io
import logging
import re
import sys
from contextlib import contextmanager

import pytest
from tqdm import tqdm

from magnifier_plugin.engine.log import PACKAGE, Tee, logged_to, show_log

logger = logging.getLogger("magnifier_plugin.engine.anything")


@contextmanager
def unset():
    """The package's logger without handlers, as in a program that does not set up logging.

    Not a fixture, because pytest adds its own handlers between fixtures and test.
    """
    kept = PACKAGE.handlers, PACKAGE.propagate, PACKAGE.level
    PACKAGE.handlers, PACKAGE.propagate = [], False
    PACKAGE.setLevel(logging.WARNING)
    yield
    PACKAGE.handlers, PACKAGE.propagate = kept[:2]
    PACKAGE.setLevel(kept[2])


@unset()
def test_the_log_is_shown_once(capsys):
    show_log()
    show_log()
    logger.info("epoch %d", 1)
    logger.debug("not this")
    assert capsys.readouterr().out == "epoch 1\n"


@unset()
def test_a_callers_own_logging_is_kept(capsys):
    own = logging.NullHandler()
    PACKAGE.addHandler(own)
    show_log()
    assert PACKAGE.handlers == [own]
    assert PACKAGE.level == logging.WARNING


@unset()
def test_what_is_printed_and_logged_is_in_the_file(tmp_path, capsys):
    screen = sys.stdout
    with logged_to(tmp_path / "new" / "folder", "train") as path:
        assert re.fullmatch(r"train\.log-\d{4}(-\d\d){5}", path.name)
        print("printed")
        logger.info("logged")
        # Immediately, because the next line may be an error.
        assert path.read_text() == "printed\nlogged\n"
    assert sys.stdout is screen
    assert (PACKAGE.handlers, PACKAGE.level) == ([], logging.WARNING)
    assert path.parent == tmp_path / "new" / "folder"
    assert capsys.readouterr().out == "printed\nlogged\n"


@unset()
def test_everything_is_restored_after_an_error(tmp_path):
    screen = sys.stdout
    with pytest.raises(KeyError), logged_to(tmp_path, "test"):
        raise KeyError
    assert sys.stdout is screen
    assert PACKAGE.handlers == []


@unset()
def test_an_existing_file_is_continued(tmp_path, monkeypatch):
    monkeypatch.setattr("time.strftime", lambda form: "-now")
    (tmp_path / "train.log-now").write_text("before\n")
    with logged_to(tmp_path, "train"):
        print("after ×")
    assert (tmp_path / "train.log-now").read_bytes() == "before\nafter ×\n".encode()


class Stream(io.StringIO):
    flushed = 0

    def flush(self):
        self.flushed += 1

    def isatty(self):
        return True

    def fileno(self):
        return 42


def test_a_tee_is_its_first_stream(tmp_path):
    stream, file = Stream(), Stream()
    tee = Tee(stream, file)
    assert tee.write("four") == 4
    tee.flush()
    assert stream.getvalue() == file.getvalue() == "four"
    assert (stream.flushed, file.flushed) == (1, 1)
    assert tee.isatty() and tee.fileno() == 42


@unset()
def test_a_line_appears_above_a_progress_bar(monkeypatch):
    stream = Stream()
    monkeypatch.setattr(sys, "stdout", stream)
    show_log()
    with tqdm(total=2, file=stream, mininterval=0, leave=True) as bar:
        logger.info("line")
        bar.update()
    assert re.search(r"\r +\rline\n", stream.getvalue())  # the bar was cleared, not continued
    assert stream.flushed
