"""(c^n, y^n) ~ M_t(x) from an OpenAI-compatible endpoint of vLLM (`vllm serve`), where a cluster serves models.

Token ids in and out, as with the other engines. The server must serve exactly M_t, which is checked by its path.
"""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

from irpo_lib.config import Config
from irpo_lib.engines import Sampler
from irpo_lib.engines.vllm import SEEDS, as_sample, parameters
from irpo_lib.models.load import resolve_model
from irpo_lib.records import Sample
from irpo_lib.terminal.errors import UserError

#: Requests under way at once.
AT_ONCE = 64
#: Seconds between two tries of a request that found no server.
PAUSES = (1, 5, 20)


def sampler(config: Config, model: str, end: int) -> Sampler:
    """`generate` of a model that the config's server has."""
    url = str(config.server)
    return partial(generate, (url, check_server(url, model)), **parameters(config, end))


def check_server(url: str, model: str) -> str:
    """The name under which the endpoint serves a model folder, or a name on the hub.

    Raises:
        UserError: there is no server, or it serves something else.
    """
    path = resolve_model(model)
    served = {m["id"]: m.get("root") or m["id"] for m in _ask(f"{url}/models")["data"]}
    for name, root in served.items():
        if root == path or (Path(path).is_dir() and Path(root).is_dir() and Path(path).samefile(root)):
            return name
    raise UserError(
        f"the server at {url} serves {', '.join(served.values())}, but {path} is needed: start one with "
        f"`python -m vllm.entrypoints.openai.api_server --model {path}`"
    )


def generate(
    source: tuple[str, str], prompts: Sequence[list[int]], seed: Sequence[int], **wanted: Any
) -> Iterator[tuple[int, list[Sample]]]:
    """As `vllm.generate`, of `source`: the endpoint's URL and a model's name there."""
    url, name = source

    def ask(index: int) -> tuple[int, list[Sample]]:
        own = {"model": name, "prompt": prompts[index], "seed": seed[index] % SEEDS}
        body = wanted | own | {"return_token_ids": True, "skip_special_tokens": False}
        choices = sorted(_ask(f"{url}/completions", body)["choices"], key=lambda c: c["index"])
        return index, [as_sample(c["token_ids"], c["finish_reason"]) for c in choices]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done in as_completed([pool.submit(ask, i) for i in range(len(prompts))]):
            yield done.result()


def _ask(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    for pause in (*PAUSES, None):
        try:
            with urllib.request.urlopen(request) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            said = " ".join(error.read().decode(errors="replace").split())[:300]
            raise UserError(f"{url} refuses a request: {error.code} {said}") from error
        except (OSError, ValueError) as error:
            if pause is None:
                raise UserError(f"{url} does not answer ({error}): is the server running?") from error
            time.sleep(pause)
    raise AssertionError("unreachable")
