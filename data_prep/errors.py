"""Errors that a person can act on: one clear message, exit code 1, no traceback; and the end of stopped work."""


class UserError(Exception):
    """Something that the user gave is wrong; the message names it, says why, and what to do."""


class DataError(UserError):
    """A corpus, tokenizer or data set on disk is missing, malformed or damaged."""


class DamagedFile(DataError):
    """A file of the input is cut or overwritten; what was read before is right."""


class Interrupted(Exception):
    """The work was asked to stop and has kept what is done: the same command goes on. Exit code 75."""
