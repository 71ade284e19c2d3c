"""What a user is told: one sentence where something is wrong, a line where work goes on."""

import contextlib
from collections.abc import Iterator


class N2NError(Exception):
    """Something outside the program is wrong: a folder, a file, a value, the machine.

    Its message is one sentence that names the culprit and says how to mend it. The command line
    prints it without a traceback and exits with code 1.
    """


def reason(error: Exception) -> str:
    """What the system says in words, without its number and without the path named again."""
    return getattr(error, "strerror", None) or str(error)


@contextlib.contextmanager
def write_errors(
    what: object, mend: str, kinds: tuple[type[Exception], ...] = (OSError,)
) -> Iterator[None]:
    """Turn a full disk or a folder that must not be written into one sentence.

    Args:
        what: cannot be written.
        mend: what to do about it, without a full stop.
        kinds: what the writer raises; PyTorch raises a `RuntimeError`, too.

    Raises:
        N2NError: in their place.
    """
    try:
        yield
    except kinds as error:
        raise N2NError(f"{what} cannot be written ({reason(error)}); {mend}.") from error


class BusyError(N2NError):
    """Another process is at work on the same run."""


def say(text: str) -> None:
    """A line for who waits, in a terminal and in a notebook."""
    print(f"n2n: {text}", flush=True)
