"""Tensor parallelism: ranks divide every matrix among them, and between matrices the sequence (https://arxiv.org/abs/2205.05198).

The residual stream is sharded by position. Attention and SwiGLU gather it, compute some heads or part of the inner width on each rank, and
scatter the sum of their outputs. The vocabulary of embedding and head is sharded, too, so no rank ever has all logits.
"""

from typing import Any

from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    PrepareModuleOutput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)  # fmt: skip

from corpusmill.train.model import Llama

SEQUENCE = Shard(1)


def spread(model: Llama, mesh: DeviceMesh) -> None:
    """Spreads the model, or a pipeline stage, over the one-dimensional `mesh` in place: its weights become DTensors.

    Its logits are then sharded by vocabulary (`loss_parallel`). Between pipeline stages hidden states are whole, the same on all ranks.
    """
    trained = {name: p.requires_grad for name, p in model.named_parameters()}
    decoder = model.model
    layers = list(decoder.layers.values())
    for layer in layers:
        parallelize_module(layer, mesh, _layer_plan(model.arch.qk_norm))
    ends: dict[str, ParallelStyle] = {}
    if decoder.embed_tokens is not None:
        ends["model.embed_tokens"] = RowwiseParallel(input_layouts=Replicate(), output_layouts=SEQUENCE)
    else:
        parallelize_module(
            layers[0],
            mesh,
            PrepareModuleInput(input_layouts=_first(Replicate()), desired_input_layouts=_first(SEQUENCE), use_local_output=True),
        )
    if decoder.norm is not None:
        ends["model.norm"] = SequenceParallel()
    else:
        parallelize_module(layers[-1], mesh, PrepareModuleOutput(output_layouts=SEQUENCE, desired_output_layouts=Replicate()))
        # without the clone it is a view of a DTensor, which can't be changed in place; FSDP2 and zero-bubble schedules need that
        layers[-1].register_forward_hook(lambda layer, given, hidden: hidden.clone())
    if model.lm_head is not None:
        ends["lm_head"] = ColwiseParallel(input_layouts=SEQUENCE, output_layouts=Shard(-1), use_local_output=False)
    parallelize_module(model, mesh, ends)
    if decoder.embed_tokens is not None:  # compiled layers mistake the gradient of an output that is still being communicated
        decoder.embed_tokens.register_forward_hook(lambda embedding, given, hidden: hidden.clone())
    model.tie()  # both are sharded by vocabulary, so they can stay one weight
    for name, p in model.named_parameters():  # SequenceParallel makes frozen weights trainable
        p.requires_grad_(trained[name])


def _first(layout: Any) -> tuple[Any, ...]:
    """Returns layouts of (x, cos, sin, mask, cache), of which only the first is sharded."""
    return (layout, None, None, None, None)


def _layer_plan(qk_norm: bool) -> dict[str, ParallelStyle]:
    plan: dict[str, ParallelStyle] = {
        "input_layernorm": SequenceParallel(),
        "self_attn": PrepareModuleInput(input_layouts=_first(SEQUENCE), desired_input_layouts=_first(Replicate())),
        **{f"self_attn.{name}_proj": ColwiseParallel() for name in "qkv"},
        "self_attn.o_proj": RowwiseParallel(output_layouts=SEQUENCE),
        "post_attention_layernorm": SequenceParallel(),
        "mlp": PrepareModuleInput(input_layouts=(SEQUENCE,), desired_input_layouts=(Replicate(),)),
        "mlp.gate_proj": ColwiseParallel(),
        "mlp.up_proj": ColwiseParallel(),
        "mlp.down_proj": RowwiseParallel(output_layouts=SEQUENCE),
    }
    if qk_norm:  # `[B, T, heads, head_dim]`: each rank norms its heads
        plan |= {f"self_attn.{name}_norm": SequenceParallel(sequence_dim=2, use_local_output=True) for name in "qk"}
    return plan
