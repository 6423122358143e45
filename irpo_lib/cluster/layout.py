"""How many processes train one model, and whether a batch can be spread over them."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from irpo_lib.terminal.errors import UserError, check_keys


@dataclass(frozen=True)
class Parallel:
    """How many processes train one model: `ddp` copies of it; or each copy in `tp` × `fsdp` pieces, spread by tensor
    parallelism within a node and by FSDP2 over nodes. The ranks of a tensor-parallel group see the same pairs."""

    ddp: int = 1
    fsdp: int = 1
    tp: int = 1

    @property
    def processes(self) -> int:
        return self.ddp * self.fsdp * self.tp

    @property
    def data_ranks(self) -> int:
        """Ranks that see pairs of their own."""
        return self.ddp * self.fsdp


def read_parallel(value: Any) -> Parallel:
    """{"tp": 8, "fsdp": 8} → Parallel; what is not named is 1."""
    if not isinstance(value, dict):
        raise UserError(f"parallel={value!r} is not of the right type: it must be like {{tp: 8, fsdp: 8}}, or {{}}")
    check_keys(value, [f.name for f in fields(Parallel)], "parallel")
    for key, number in value.items():
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise UserError(f"parallel: {key}={number!r} cannot be: it must be 1 or more")
    return Parallel(**value)


def check_batch(config: Any) -> None:
    """A global batch is a whole number of micro-batches on each data rank; else a UserError proposes what would be."""
    batch, micro, p = config.batch_size, config.micro_batch_size, config.parallel
    if batch % p.data_ranks:
        in_a_node = p.processes // config.nodes
        sizes = [in_a_node, *range(1, p.processes + 1)]
        tp = next(n for n in sizes if p.processes % n == 0 and batch % (p.processes // n) == 0)
        fsdp = p.processes // tp
        raise UserError(
            f"batch_size={batch} cannot be spread over {p.data_ranks} data ranks (parallel={asdict(p)}): the same "
            f"{p.processes} processes as {{tp: {tp}, fsdp: {fsdp}}} take {batch // fsdp} pairs each"
        )
    if batch // p.data_ranks % micro:
        raise UserError(
            f"micro_batch_size={micro} does not divide the {batch // p.data_ranks} pairs that each of {p.data_ranks} "
            f"data ranks takes of batch_size={batch}: choose a micro-batch that divides them"
        )


def check_parallel(config: Any) -> None:
    p = config.parallel
    if p.ddp > 1 and (p.fsdp > 1 or p.tp > 1):
        raise UserError(f"parallel={asdict(p)}: ddp keeps whole copies of the model and cannot be had with fsdp or tp")
    if p.processes % config.nodes:
        raise UserError(f"parallel={asdict(p)} makes {p.processes} processes, which nodes={config.nodes} cannot share")
    if p.processes > 1 and config.training_engine == "trl":
        raise UserError("training_engine=trl trains in one process: set parallel={} or training_engine=irpo")
    if config.lora_rank and (p.fsdp > 1 or p.tp > 1):
        raise UserError("lora_rank needs a model that is not cut up: set parallel={ddp: N}, or lora_rank=0")
    if config.nodes > 1 and config.launcher == "local":
        raise UserError(
            f"nodes={config.nodes} needs launcher=slurm: launcher=local starts processes on this machine only"
        )
    if (config.engine == "server") != (config.server is not None):
        raise UserError("engine=server and server=URL go together, as in server=http://localhost:8000/v1")
