"""Errors that a person can act on: one clear message, exit code 1, no traceback."""


class UserError(Exception):
    """Something that the user gave is wrong; the message names it, says why, and what to do."""


class DataError(UserError):
    """A corpus, tokenizer or data set on disk is missing, malformed or damaged."""
