"""The notebooks as a student meets them: opened in JupyterLab in a browser, all cells run, and looked at."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import wait_until
from test_notebooks import NOTEBOOKS, SMALL

#: Not in `make check`: notebooks in a real browser.
pytestmark = pytest.mark.slow

SCREENSHOTS = Path(__file__).parents[1] / "runs" / "screenshots"
#: Tests of speed and of two processes have their place elsewhere; here every cell must run in seconds.
COURSE = SMALL | {"iterations": 2, "temperatures": [0.8, 1.0], "majority_iterations": [0, 2], "batch_size": 8,
                  "micro_batch_size": 8}  # fmt: skip
#: All cells stand in the page at once, so that they can be looked at; nothing asks for the network.
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
TALLEST = 900  # pixels of one output; more is a page of its own


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A running JupyterLab on copies of the notebooks, with settings so small that they run in seconds: its address."""
    home = tmp_path_factory.mktemp("lab")
    for path in NOTEBOOKS:
        (home / path.name).write_text(json.dumps(small(path, home / "run")), encoding="utf8")
    for extension, setting in SETTINGS.items():
        file = home / "settings" / "@jupyterlab" / f"{extension}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(setting), encoding="utf8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--ServerApp.port={port}",
        f"--ServerApp.root_dir={home}", "--IdentityProvider.token=", "--LabApp.expose_app_in_browser=True",
        "--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    environment = os.environ | {
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
        "JUPYTER_CONFIG_DIR": str(home / "config"), "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
    }  # fmt: skip
    with (home / "log").open("w") as log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as server:
        wait_until(lambda: listens(port), server)
        yield f"http://127.0.0.1:{port}"
        server.terminate()


def small(path: Path, run_dir: Path) -> dict:
    """The notebook without outputs, with other parameters."""
    notebook = json.loads(path.read_text(encoding="utf8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = []
        if "parameters" in cell["metadata"].get("tags", []):
            cell["source"] += [f'\nrun_dir = "{run_dir}"\noverrides = {COURSE!r}']
    return notebook


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_all_cells_run_in_a_browser(lab, chromium, path):
    page = chromium.new_page(viewport={"width": 1300, "height": 1000})
    page.goto(f"{lab}/lab/workspaces/{path.stem}/tree/{path.name}?reset", wait_until="domcontentloaded")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
    page.wait_for_function(
        "window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status == 'idle'", timeout=60_000
    )
    page.set_default_timeout(300_000)
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    page.wait_for_timeout(500)
    notebook = page.evaluate("window.jupyterapp.shell.currentWidget.content.model.sharedModel.toJSON()")
    code = [c for c in notebook["cells"] if c["cell_type"] == "code" and "".join(c["source"]).strip()]
    outputs = [o for c in code for o in c["outputs"]]

    errors = [f"{o['ename']}: {o['evalue']}" for o in outputs if o["output_type"] == "error"]
    assert not errors
    assert all(c["execution_count"] for c in code), "a cell has not run"
    assert not [o for o in outputs if o.get("name") == "stderr"], "noise on stderr"
    assert not [o for o in outputs if any("widget" in kind for kind in o.get("data", {}))]
    drawn = sum("plt.show()" in "".join(c["source"]) for c in code)
    figures = sum("image/png" in o.get("data", {}) for o in outputs)
    assert figures >= max(drawn, 1)

    assert page.locator(".jp-OutputArea-output img").count() == figures
    boxes = page.locator(".jp-OutputArea-output").evaluate_all(
        "all => all.map(o => ({height: o.offsetHeight, inner: o.scrollWidth, width: o.clientWidth}))"
    )
    assert max(box["height"] for box in boxes) <= TALLEST
    assert not [box for box in boxes if box["inner"] > box["width"] + 2], "an output has to be scrolled sideways"
    folded = page.locator(".jp-MarkdownCell details").evaluate_all("all => all.map(d => d.open)")
    assert folded, "no exercise"
    assert not any(folded), "a solution is open"

    take_picture(page, SCREENSHOTS / f"{path.stem}.png")
    page.close()


def take_picture(page, path: Path) -> None:
    """The whole notebook as one picture: in a window that is as tall as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    page.evaluate("window.jupyterapp.commands.execute('application:toggle-left-area')")
    inner = page.locator(".jp-WindowedPanel-outer").first
    page.set_viewport_size({"width": 1100, "height": 100 + min(inner.evaluate("n => n.scrollHeight"), 16_000)})
    inner.evaluate("n => { n.scrollTop = 0; }")
    page.wait_for_timeout(1000)
    page.screenshot(path=path)
