"""The one exception that a user is meant to read."""


class N2NError(Exception):
    """Something outside the program is wrong: a folder, a file, a value, the machine.

    Its message is one sentence that names the culprit and says how to mend it. The command line
    prints it without a traceback and exits with code 1.
    """


class BusyError(N2NError):
    """Another process is at work on the same run."""
