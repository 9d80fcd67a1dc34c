"""The keys of DeepSpeed's JSON: those it reads, and those that a run cannot have, as data."""

from collections.abc import Mapping
from types import MappingProxyType

AUTO = "auto"

# Section of the JSON ("" is its top) -> the keys that DeepSpeed 0.19 reads in it. At the top, and in data_types, it
# passes over others in silence; in the other sections it stops each rank with a message of its own.
KNOWN_KEYS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "": frozenset(
            {
                *("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"),
                *("managed_gradient_accumulation", "gradient_clipping", "gradient_allreduce_op"),
                *("prescale_gradients", "gradient_predivide_factor", "communication_data_type"),
                *("seq_parallel_communication_data_type", "optimizer", "scheduler", "bf16", "fp16", "data_types"),
                *("torch_autocast", "zero_optimization", "zero_allow_untested_optimizer"),
                *("zero_force_ds_cpu_optimizer", "pipeline", "activation_checkpointing", "steps_per_print"),
                *("wall_clock_breakdown", "memory_breakdown", "dump_state", "log_level", "disable_python_gc"),
                *("disable_allgather", "vocabulary_size", "tensorboard", "wandb", "csv_monitor", "comet"),
                *("comms_logger", "flops_profiler", "timers", "aio", "checkpoint", "datastates_ckpt"),
                *("dataloader_drop_last", "data_efficiency", "autotuning", "hybrid_engine", "compile"),
                *("tensor_parallel", "sequence_parallel_size", "expert_parallel", "weight_quantization"),
                *("use_data_before_expert_parallelism",),
            }
        ),
        "bf16": frozenset(
            {
                *("enabled", "immediate_grad_update", "check_grad_overflow", "bf16_master_weights_and_grads"),
                *("bf16_optimizer_states",),
            }
        ),
        "fp16": frozenset(
            {
                *("enabled", "auto_cast", "loss_scale", "initial_scale_power", "loss_scale_window", "hysteresis"),
                *("consecutive_hysteresis", "min_loss_scale", "fp16_master_weights_and_grads"),
            }
        ),
        "data_types": frozenset({"grad_accum_dtype", "param_dtype", "buffer_dtype", "keep_in_fp32_modules"}),
        "optimizer": frozenset({"type", "params", "legacy_fusion"}),
        "zero_optimization": frozenset(
            {
                *("stage", "contiguous_gradients", "reduce_scatter", "reduce_bucket_size"),
                *("use_multi_rank_bucket_allreduce", "allgather_partitions", "allgather_bucket_size", "overlap_comm"),
                *("compute_grad_norm", "load_from_fp32_weights", "elastic_checkpoint", "offload_param"),
                *("offload_optimizer", "zenflow", "sub_group_size", "ignore_unused_parameters", "legacy_stage1"),
                *("round_robin_gradients", "parameter_alignment", "zero_hpz_partition_size"),
                *("zero_quantized_weights", "zero_quantized_nontrainable_weights", "zero_quantized_gradients"),
                *("memory_efficient_linear", "pipeline_loading_checkpoint", "override_module_apply"),
                *("log_trace_cache_warnings", "enable_sanity_checks", "save_muon_momentum_buffer_in_memory"),
                *("leaf_module", "stage3_prefetch_bucket_size", "stage3_param_persistence_threshold"),
                *("stage3_model_persistence_threshold", "stage3_max_live_parameters", "stage3_max_reuse_distance"),
                *("stage3_gather_16bit_weights_on_model_save", "stage3_module_granularity_threshold"),
                *("stage3_use_all_reduce_for_fetch_params", "stage3_allgather_sequential"),
            }
        ),
        "zero_optimization.offload_optimizer": frozenset(
            {
                *("device", "nvme_path", "buffer_count", "pin_memory", "pipeline_read", "pipeline_write"),
                *("fast_init", "ratio", "super_offload", "cpuadam_cores_perc"),
            }
        ),
        "zero_optimization.offload_param": frozenset(
            {"device", "nvme_path", "buffer_count", "buffer_size", "max_in_cpu", "pin_memory"}
        ),
    }
)

_REMOVED = "DeepSpeed 0.19 no longer has it"
_SAVED = "what checkpoint of the run config saves would not hold it all"
_FP32 = "master weights and the optimizer's state are fp32 here"

# Key of the JSON -> why no run can have it, whatever its value; the way out is to leave it out.
UNUSABLE_KEYS: Mapping[str, str] = MappingProxyType(
    {
        "scheduler": "schedule of the run config is the learning rate's",
        "activation_checkpointing": "parallel.recompute of the run config says what is computed again",
        "tensor_parallel": "parallel.tensor_parallel_size of the run config splits the layers",
        "sequence_parallel_size": "parallel.sequence_parallel of the run config splits the sequence",
        "expert_parallel": "no model here has experts",
        "data_efficiency": "data of the run config says what is read",
        "dataloader_drop_last": "data of the run config says what is read",
        "torch_autocast": "precision.dtype of the run config is the number format",
        "bfloat16": "it is the old name of bf16",
        "checkpoint": "checkpoint of the run config says what is saved",
        "datastates_ckpt": "checkpoint of the run config says what is saved",
        "autotuning": "it starts runs of its own",
        "hybrid_engine": "it is for generation between steps",
        "compile": "nothing here compiles the model",
        "weight_quantization": "it is for inference",
        **dict.fromkeys(
            (
                *("nebula", "compression_training", "amp", "quantize_training", "sparse_gradients", "eigenvalue"),
                *("sparse_attention", "elasticity", "graph_harvesting", "curriculum_learning"),
                *("progressive_layer_drop", "zero_optimization.mics_shard_size"),
                *("zero_optimization.mics_hierarchical_params_gather", "zero_optimization.zeropp_loco_param"),
            ),
            _REMOVED,
        ),
        "zero_optimization.zenflow": _SAVED,
        "zero_optimization.elastic_checkpoint": _SAVED,
        "zero_optimization.legacy_stage1": _REMOVED,
        "optimizer.params.max_grad_norm": "optimizer.grad_clip of the run config clips",
    }
)

# Key of the JSON -> the values that a run can have, and why no others.
ONLY_VALUES: Mapping[str, tuple[tuple[object, ...], str]] = MappingProxyType(
    {
        "managed_gradient_accumulation": ((True,), "the micro-batches of a step are counted by DeepSpeed"),
        "gradient_allreduce_op": (("mean",), "the loss is the mean over the global batch"),
        "pipeline.pipe_partitioned": ((False,), "tensor-parallel ranks need not hold the same activations"),
        "pipeline.grad_partitioned": ((False,), "tensor-parallel ranks need not hold the same activations"),
        "bf16.bf16_master_weights_and_grads": ((False,), _FP32),
        "bf16.bf16_optimizer_states": ((False,), _FP32),
        "fp16.fp16_master_weights_and_grads": ((False,), _FP32),
        "zero_optimization.compute_grad_norm": ((True,), "the norm is a figure of each step"),
        "zero_optimization.offload_optimizer.device": (("none", "cpu"), _SAVED),
        "zero_optimization.offload_optimizer.super_offload": ((False,), _SAVED),
        "zero_optimization.offload_param.device": (("none", "cpu"), _SAVED),
    }
)
