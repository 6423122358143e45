"""Why the Hugging Face hub did not give a model, as a sentence that says what to do."""

from typing import Any

from huggingface_hub import constants, errors
from huggingface_hub.utils import httpx


def hub_problem(name: str, error: BaseException) -> str | None:
    """What the hub's client met below an error of transformers; None where it was nothing of this."""
    if gated := _below(error, errors.GatedRepoError):
        return (
            f"the hub gives the model {name} only to those who have accepted its licence (status "
            f"{gated.response.status_code}): accept it at https://huggingface.co/{name}, then log in with "
            "`hf auth login`"
        )
    if _below(error, errors.RepositoryNotFoundError, errors.HFValidationError):
        return (
            f"{name} is no folder here, and the hub has no model of that name that you may see: correct the name, or "
            "log in with `hf auth login` if the model is private"
        )
    if _below(error, httpx.ConnectError, httpx.TimeoutException):
        return (
            f"the model {name} is not in the cache ({constants.HF_HUB_CACHE}), and the hub ({constants.ENDPOINT}) "
            "cannot be reached: get it where there is a network, or pass model=FOLDER"
        )
    if _below(error, httpx.TransportError):
        return f"the connection to the hub broke off while the model {name} was downloaded: give the same command again"
    return None


def _below(error: BaseException | None, *kinds: type[BaseException]) -> Any:
    """The error of these kinds that the error was raised from, or while it was handled; None where there is none."""
    while error is not None and not isinstance(error, kinds):
        error = error.__cause__ or error.__context__
    return error
