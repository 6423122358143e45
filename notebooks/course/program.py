"""The course as a program: papermill executes the notebooks into a run folder."""

import io
import os
from pathlib import Path
from typing import Any

from irpo_lib.stages.store import hash_json, read_json, write_json
from irpo_lib.terminal.errors import UserError
from irpo_lib.terminal.progress import LEFT

NOTEBOOKS = Path(__file__).resolve().parents[1]
#: Not of the paper: run only when asked for.
BEYOND = "08_beyond.ipynb"


def run_notebooks(run_dir: Path, parameters: dict[str, Any], beyond: bool = False) -> None:
    """Executes the notebooks in order; one that was executed with the same source and parameters is skipped.

    Args:
        run_dir: The folder of the run, which is one more parameter.
        parameters: What the notebooks take: preset, task, seed and overrides.
        beyond: Adds the notebook on what is not in the paper.

    Raises:
        UserError: a cell raised; the notebook with the traceback is kept beside the others.
    """
    sources = [n for n in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb")) if beyond or n.name != BEYOND]
    if not sources:
        raise UserError(f"{NOTEBOOKS} holds no notebook: install the project from a clone, with `pip install -e .`")
    out = run_dir / "notebooks"
    out.mkdir(parents=True, exist_ok=True)
    for source in sources:
        _run_notebook(source, out, parameters | {"run_dir": str(run_dir.resolve())})
    print(f"\nThe executed notebooks are in {out}, the results in {run_dir / 'results'}:\n")
    print((run_dir / "results" / "table.md").read_text(encoding="utf8"))


def _run_notebook(source: Path, out: Path, parameters: dict[str, Any]) -> None:
    target, record = out / source.name, out / f".{source.stem}.json"
    code = ["".join(cell["source"]) for cell in read_json(source)["cells"]]  # without its outputs
    wanted = {"source": hash_json(code), "parameters": parameters}
    if target.is_file() and record.is_file() and hash_json(read_json(record)) == hash_json(wanted):
        print(f"{source.stem}: done before")
        return
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    print(f"{source.stem}: running", flush=True)
    temporary = out / f".{source.stem}.partial.ipynb"
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        papermill.execute_notebook(
            source, temporary, parameters, kernel_name="python3", progress_bar=False, stdout_file=ProgressLines(),
            cwd=str(Path.cwd()), config=Config(KernelManager={"transport": "ipc"}),
            # nbclient ends a kernel with an interrupt, of which a kernel that is still busy complains on our stderr.
            extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
        )  # fmt: skip
    except PapermillExecutionError as error:
        failed = out / f"{source.stem}.failed.ipynb"
        os.replace(temporary, failed)
        what = " ".join(f"{error.ename}: {error.evalue}".split())
        raise UserError(f"{source.name}, cell {error.cell_index}: {what} (see {failed})") from error
    except DeadKernelError as error:
        raise UserError(
            f"{source.name}: its process was killed, most likely for want of memory: a smaller micro_batch_size or "
            f"generation_rows may help; the same command goes on from here"
        ) from error
    os.replace(temporary, target)
    write_json(record, wanted)


class ProgressLines(io.StringIO):
    """Passes on the progress lines of a running notebook; the rest of its output is in the notebook."""

    def write(self, text: str) -> int:
        for line in text.splitlines():
            if line.endswith(LEFT):
                print("  " + line, flush=True)
        return len(text)
