"""The one exception that a user is meant to read."""


class N2NError(Exception):
    """Something outside the program is wrong: a folder, a file, a value, the machine.

    Its message is one sentence that names the culprit and says how to mend it. The command line
    prints it without a traceback and exits with code 1.
    """


def reason(error: Exception) -> str:
    """What the system says in words, without its number and without the path named again."""
    return getattr(error, "strerror", None) or str(error)


class BusyError(N2NError):
    """Another process is at work on the same run."""
