"""The errors that the command line shows to people, and what ends a run cleanly."""

from data_prep.errors import DataError, Interrupted, UserError

__all__ = ["CheckpointError", "ClusterError", "ConfigError", "DataError", "Interrupted", "UserError"]


class ConfigError(UserError):
    """The run config is wrong. `problems` holds every problem found, one sentence each."""

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__(problems[0] if len(problems) == 1 else _listed(problems))


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, or of another model."""


class ClusterError(UserError):
    """The machines, devices or process environment cannot run what was asked."""


def _listed(problems: tuple[str, ...]) -> str:
    return "\n".join([f"{len(problems)} problems:", *(f"  - {problem}" for problem in problems)])
