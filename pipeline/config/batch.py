"""Batch arithmetic, in sequences: global = micro x data parallel x accumulation."""


def accumulation_steps(*, global_batch_size: int, micro_batch_size: int, data_parallel_size: int) -> int:
    """Micro-batches that each model copy runs per optimizer step.

    The global batch size must be a multiple of micro x data parallel; `pipeline.config.rules` says so to the user.
    """
    return global_batch_size // (micro_batch_size * data_parallel_size)
