"""What one start of a job may choose without changing the bytes, and how its processes say how they ended."""

from dataclasses import dataclass

BAD_RECORD_POLICIES = ("fail", "skip", "quarantine")
EXIT_WRONG_INPUT = 65  # not 1, which Python itself uses for a traceback
EXIT_INTERRUPTED = 75


@dataclass(frozen=True, kw_only=True)
class Options:
    """The choices.

    Attributes:
        on_bad_record: fail ends the job at the first bad record; skip counts them; quarantine also keeps them.
        recheck: documents of each shard whose ids are compared with the reference tokenizer's.
    """

    on_bad_record: str = "fail"
    recheck: int = 8
