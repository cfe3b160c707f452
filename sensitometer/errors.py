"""The errors that Sensitometer raises. Each message is one line: what is wrong, and what was expected."""


class SensitometerError(Exception):
    """Base of every error that Sensitometer raises on purpose; the command line prints it as one line and exits with 2."""


class InvalidInputError(SensitometerError, ValueError):
    """An argument, or a value in a specification, is not what the function takes."""


class TooManyRegionsError(SensitometerError):
    """A slice has more linear regions than were asked for at most."""


class DataError(SensitometerError):
    """A data set is missing, damaged or not what its name says, or could not be fetched."""


class StoreError(SensitometerError):
    """A survey's folder or results file is missing, damaged, or belongs to another survey."""


class WorkerError(SensitometerError):
    """A worker process could not be started, or ended before it had answered."""


class MissingDataError(SensitometerError):
    """A survey holds nothing that a figure could draw. The message says what is needed, and what there is."""
