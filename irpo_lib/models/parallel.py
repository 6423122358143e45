"""The processes that train one model together: who sees which pairs, how the model is cut up, and how sums are made.

A preset's `parallel` says the layout. One process needs nothing of this. `ddp` keeps a copy of the model in each
process. `tp` × `fsdp` cuts one model into pieces, through transformers' own `DistributedConfig`: tensor parallel within
a node, FSDP2 across nodes. The ranks of a tensor-parallel group see the same pairs, so that of 64 processes with tp 8
there are 8 *data ranks*.

Equation 1 is a mean over the pairs of the global batch. Every rank divides its own sum by the whole batch's size, and
gradients are summed over data ranks: the result does not depend on the layout.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from irpo_lib.config import Config, Parallel
from irpo_lib.models.device import device
from irpo_lib.terminal.errors import UserError

T = TypeVar("T")
#: How long a collective may take before the run is given up: the slowest is loading and writing weights.
PATIENCE = timedelta(minutes=60)


@dataclass(frozen=True)
class Ranks:
    """This process among those of the layout."""

    layout: Parallel
    rank: int = 0

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def sharded(self) -> bool:
        """Whether the model is cut up, and its parameters are DTensors."""
        return self.layout.fsdp > 1 or self.layout.tp > 1

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This data rank's part of what all data ranks do together.

        Ranks of a tensor-parallel group are neighbours, so that they share a node, and have the same part.
        """
        return items[self.rank // self.layout.tp :: self.layout.data_ranks]


def join(config: Config) -> Ranks:
    """Joins the processes that the launcher has started.

    Raises:
        UserError: there are not as many of them as `parallel` asks for.
    """
    layout, started = config.parallel, int(os.environ.get("WORLD_SIZE", 1))
    if layout.processes == 1 and started == 1:
        return Ranks(layout)
    if started != layout.processes:
        raise UserError(
            f"parallel={layout} needs {layout.processes} processes, but {started} were started: start them with "
            f"`irpo run`, or with torchrun"
        )
    if not dist.is_initialized():
        gpu = None
        if torch.cuda.is_available():
            gpu = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(gpu)
        dist.init_process_group("nccl" if gpu else "gloo", timeout=PATIENCE, device_id=gpu)
    return Ranks(layout, dist.get_rank())


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def distributed_config(config: Config) -> Any:
    """What `from_pretrained` needs to cut the model up while it loads; None where it stays whole."""
    layout = config.parallel
    if layout.fsdp == layout.tp == 1:
        return None
    from transformers.distributed import DistributedConfig

    low = layout.fsdp > 1 and config.dtype == "bfloat16"
    return DistributedConfig(tp_size=layout.tp, fsdp_size=layout.fsdp, fsdp_mixed_precision=low)


def check_layout(model: PreTrainedModel, ranks: Ranks) -> None:
    """Some routes to several processes silently train in one, or each for itself.

    Raises:
        UserError: the model is not cut up as `parallel` asks for.
    """
    layout, whole = ranks.layout, sum(p.numel() for p in model.parameters())
    for name, size, least in (("fsdp", layout.fsdp, 1.0), ("tp", layout.tp, 0.3)):
        cut = sum(p.numel() for p in model.parameters() if _pieces(p, name) == size)
        if size > 1 and cut < least * whole:  # tensor parallelism keeps embeddings and norms whole
            raise UserError(
                f"parallel={layout}: {cut:,} of {whole:,} parameters are cut into {size} pieces by {name}; this "
                f"model's architecture cannot be trained in this layout"
            )


def share_tied_pieces(model: PreTrainedModel) -> None:
    """Makes FSDP2 see that a head which is the embedding is one tensor.

    transformers ties them after FSDP2 has cut up both. Where the rows do not divide evenly, FSDP2 then pads a copy for
    each on its first use, of which the optimiser updates one, and the model goes on with an old half of the other.
    """
    seen: dict[int, Any] = {}
    for module in model.modules():
        group = module._get_fsdp_state()._fsdp_param_group if isinstance(module, FSDPModule) else None
        for piece in group.fsdp_params if group else ():
            parameter = getattr(piece._module_info.module, piece._module_info.param_name)
            if id(parameter) in seen:
                piece.sharded_param = parameter
                piece._sharded_param_data = seen[id(parameter)]._sharded_param_data
            else:
                piece.reset_sharded_param()
                seen[id(parameter)] = piece


def let_go(model: PreTrainedModel) -> None:
    """FSDP2 keeps what a forward pass has put together last until a backward pass: cuts it up again without one."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _pieces(parameter: torch.nn.Parameter, dimension: str) -> int:
    """Into how many pieces a dimension of the mesh cuts a parameter."""
    if not isinstance(parameter, DTensor) or dimension not in (parameter.device_mesh.mesh_dim_names or ()):
        return 1
    return parameter.device_mesh[dimension].size()


def by_kind(parameters: Sequence[torch.nn.Parameter]) -> list[list[torch.nn.Parameter]]:
    """Plain tensors and DTensors apart: a fused optimiser cannot update both at once."""
    groups = [[p for p in parameters if isinstance(p, DTensor) == cut] for cut in (False, True)]
    return [group for group in groups if group]


def sum_gradients(parameters: Iterable[torch.nn.Parameter], ranks: Ranks) -> None:
    """Sums over data ranks. FSDP2 takes the mean in its backward pass; whole copies are summed here."""
    for gradient in (p.grad for p in parameters if p.grad is not None):
        if ranks.sharded:
            gradient.mul_(ranks.layout.fsdp)
        elif ranks.layout.ddp > 1:
            dist.all_reduce(gradient)


def clip_gradients(parameters: Sequence[torch.nn.Parameter], longest: float, ranks: Ranks) -> float:
    """Scales the gradient of all parameters to the length `longest` where it is longer; returns its length.

    torch's own norm cannot mix parameters that are cut up over different meshes, as tensor parallelism makes them.
    """
    if not ranks.sharded:
        return torch.nn.utils.clip_grad_norm_(parameters, longest).item()
    norms = [whole(torch.linalg.vector_norm(p.grad, dtype=torch.float32)) for p in parameters if p.grad is not None]
    norm = torch.stack(norms).square().sum().sqrt()
    # One by one: all at once it cannot take plain tensors and DTensors together.
    torch.nn.utils.clip_grads_with_norm_(parameters, longest, norm, foreach=False)
    return norm.item()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor put together from its pieces, on every rank."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sum_over_data_ranks(values: dict[str, float], ranks: Ranks) -> dict[str, float]:
    if ranks.layout.data_ranks == 1 or not values:
        return values
    numbers = torch.tensor(list(values.values()), dtype=torch.float64, device=device())
    dist.all_reduce(numbers)
    return dict(zip(values, (numbers / ranks.layout.tp).tolist(), strict=True))


def gather_dicts(mine: dict[Any, Any], ranks: Ranks) -> dict[Any, Any]:
    """All ranks' entries together, on every rank."""
    if ranks.layout.processes == 1:
        return mine
    parts: list[dict[Any, Any]] = [{} for _ in range(ranks.layout.processes)]
    dist.all_gather_object(parts, mine)
    return {key: value for part in parts for key, value in part.items()}


def wait_for_all(ranks: Ranks) -> None:
    if ranks.layout.processes > 1:
        dist.barrier()
