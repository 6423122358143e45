"""The `irpo` command."""

import argparse
import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from irpo_lib.config import load_config, parse_overrides, short_name
from irpo_lib.terminal.errors import UserError, nearest


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, or 1 with one sentence on stderr for what a user can put right."""
    args = _parser().parse_args(argv)
    args.argv = sys.argv[1:] if argv is None else argv
    try:
        args.command(args)
    except UserError as error:
        print(f"irpo: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        where = f" ({error.filename})" if error.filename else ""
        print(f"irpo: {error.strerror}{where}: nothing half-written is left under a final name; "
              f"make room or choose another --run-dir and run the same command again", file=sys.stderr)  # fmt: skip
        return 1
    except KeyboardInterrupt:
        print("irpo: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def run(args: argparse.Namespace) -> None:
    overrides = parse_overrides(args.set)
    config = load_config(args.preset, args.task, **overrides)  # before the imports that take seconds
    run_dir = Path(args.run_dir or f"runs/{Path(args.preset).stem}-{short_name(config.task)}")
    if args.sbatch:
        from irpo_lib.cluster.slurm import whole_script

        rest = [a for a in args.argv if a not in ("--sbatch", args.sbatch)]
        Path(args.sbatch).write_text(whole_script(config, rest), encoding="utf8")
        print(f"wrote {args.sbatch}: hand it in with `sbatch {args.sbatch}`; handed in again, it goes on")
        return
    if args.dry_run:
        from irpo_lib.cluster.dry_run import dry_run

        print(dry_run(config, run_dir.resolve()))
        return
    from irpo_course.program import run_notebooks

    from irpo_lib.models.load import check_weights, load_tokenizer
    from irpo_lib.tasks import get_task, read_split

    # What would stop a notebook stops here, before anything is written.
    if not config.probe_every:
        raise UserError(
            "probe_every=0 leaves notebook 05 nothing to show: set it to 1 or more (`irpo reproduce` takes 0)"
        )
    load_tokenizer(config.model)
    check_weights(config.model)
    for split in ("train", "test"):
        read_split(get_task(config.task, config.task_path), split)
    parameters = {"preset": args.preset, "task": config.task, "seed": config.seed, "overrides": overrides}
    run_notebooks(run_dir, parameters, args.beyond)


def reproduce(args: argparse.Namespace) -> None:
    overrides = parse_overrides(args.set)  # read before the imports that take seconds
    configs = {task: load_config(args.preset, **overrides | {"task": task}) for task in args.tasks}
    from irpo_reproduction.grid import reproduce as run_grid

    run_grid(configs, range(args.seeds), args.out, args.models)
    for show in (table, figures, claims):
        show(argparse.Namespace(runs=[args.out], out=None))


def plan(args: argparse.Namespace) -> None:
    from irpo_lib.cluster.hours import hours_table
    from irpo_lib.cluster.plan import GPUS, plan_table

    if args.gpus not in GPUS:
        raise UserError(f"unknown GPU '{args.gpus}'" + nearest(args.gpus, GPUS))
    config, gpu = load_config(args.preset, args.task, **parse_overrides(args.set)), GPUS[args.gpus]
    print("\n".join([plan_table(config, gpu), hours_table(config, gpu, args.price)]))


def status(args: argparse.Namespace) -> None:
    from irpo_lib.results.tables import status_table

    print(status_table(args.run_dir))


def report(args: argparse.Namespace) -> None:
    from irpo_lib.report.page import write_report

    print(write_report(args.run_dir, args.out, args.problems, not args.without_models))


def table(args: argparse.Namespace) -> None:
    from irpo_lib.results.figures import write_results

    print(*write_results(*_runs_and_out(args)), sep="\n")


def figures(args: argparse.Namespace) -> None:
    from irpo_lib.results.figures import write_figures

    paths, missing = write_figures(*_runs_and_out(args))
    print(*missing, *paths, sep="\n")


def claims(args: argparse.Namespace) -> None:
    from irpo_reproduction.claims import write_claims

    for line in write_claims(*_runs_and_out(args)):
        print(line)


def _runs_and_out(args: argparse.Namespace) -> tuple[list, Path]:
    """What is shown, and the folder that its files go to."""
    from irpo_lib.results.runs import find_runs

    return find_runs(map(Path, args.runs)), args.out or Path(args.runs[0], "results")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 1 or more")
    return int(text)


def make_data(args: argparse.Namespace) -> None:
    from irpo_world.splits import make_data as make

    for path in make(args.out):
        print(path)


def make_seed_model(args: argparse.Namespace) -> None:
    from irpo_world.seed_model import make_seed_model as make

    make(args.out, args.seed)
    print(f"the seed model is in {args.out}")


def _add_settings(p: argparse.ArgumentParser) -> None:
    p.add_argument("--preset", default="mini", help="a name in irpo_lib/presets, or a YAML file (default: mini)")
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the preset")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="irpo", description="Iterative Reasoning Preference Optimization")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(command: Callable[..., Any], what: str) -> argparse.ArgumentParser:
        p = commands.add_parser(command.__name__.replace("_", "-"), help=what)
        p.set_defaults(command=command)
        return p

    p = add(run, "execute the notebooks into a run folder; goes on where it stopped")
    _add_settings(p)
    p.add_argument("--task", help="overrides the preset's task")
    p.add_argument("--run-dir", help="default: runs/PRESET-TASK")
    p.add_argument("--beyond", action="store_true", help="notebook 08, too: GRPO and others; some minutes more")
    p.add_argument("--dry-run", action="store_true", help="print every command and script, run none")
    p.add_argument("--sbatch", metavar="FILE", help="write one Slurm script for the whole run instead of running it")

    p = add(plan, "the memory, hours and cost of a preset, computed")
    p.add_argument("--gpus", default="A100-80GB", metavar="KIND", help="as in A100-80GB (default), H100-80GB, L4-24GB")
    p.add_argument("--price", type=float, default=2.0, help="dollars for a GPU and hour (default: 2)")
    _add_settings(p)
    p.add_argument("--task", help="overrides the preset's task")

    p = add(status, "what a run has done: stages, counts, times, accuracies")
    p.add_argument("run_dir", type=Path)

    p = add(report, "a run as one HTML file: accuracies, figures, and a browser of its samples")
    p.add_argument("run_dir", type=Path, metavar="RUN")
    p.add_argument("--out", type=Path, metavar="FILE", help="default: RUN/results/report.html")
    p.add_argument("--problems", type=_count, default=60, metavar="N", help="training problems shown (default: 60)")
    p.add_argument("--without-models", action="store_true", help="load no model; tokens of pairs then have no colours")

    p = add(reproduce, "every row of Tables 1-2 and line of Figures 2-4, for several seeds")
    _add_settings(p)
    p.add_argument("--tasks", nargs="+", default=["gsm8k-mini", "arc-mini", "math-mini"], metavar="TASK")
    p.add_argument("--seeds", type=int, default=3, help="how many: seeds 0, 1, … (default: 3)")
    p.add_argument("--models", nargs="+", default=[], metavar="M0", help="one for each seed (default: the preset's)")
    p.add_argument("--out", type=Path, default="runs/reproduce", help="default: runs/reproduce")

    for command, what in (
        (table, "Tables 1-2 of runs beside the paper's, as CSV, Markdown and figures"),
        (figures, "Figures 1-4 from the logs of runs, as PDF, PNG and CSV"),
        (claims, "what the paper claims, put to the test on runs"),
    ):
        p = add(command, what)
        p.add_argument("runs", nargs="+", metavar="RUN", help="run folders, or a folder of them; one a task and seed")
        p.add_argument("--out", type=Path, help="where the files go (default: the first RUN's folder 'results')")

    p = add(make_data, "make the splits of the mini tasks")
    p.add_argument("--out", type=Path, default="data")

    p = add(make_seed_model, "pre-train mini-llama: 3,000 steps, about 20 minutes on two cores")
    p.add_argument("--out", type=Path, default="data/mini-llama")
    p.add_argument("--seed", type=int, default=0, help="of the weights and the documents (default: 0)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
