"""The one exception for what a user can put right: its message is a sentence that says what, where and how."""

import difflib
from collections.abc import Collection, Iterable


class UserError(Exception):
    """Bad input. The command line prints the message alone and exits with status 1."""


def nearest(word: str, known: Iterable[str]) -> str:
    """ "; did you mean 'beta'?" for 'betta', or the list of what is known where nothing is near."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; known are {', '.join(known)}"


def check_keys(keys: Iterable[str], known: Collection[str], where: str) -> None:
    """Raises UserError for the first key that is not known."""
    for key in keys:
        if key not in known:
            raise UserError(f"{where}: unknown key '{key}'" + nearest(str(key), known))


def check_whole(keys: Collection[str], wanted: Collection[str], where: str) -> None:
    """Raises UserError for the keys that are not there."""
    if missing := set(wanted) - set(keys):
        raise UserError(f"{where}: these keys are missing: {', '.join(sorted(missing))}")


def first_sentence(error: Exception) -> str:
    """Of a library's message, which may go on for lines."""
    return " ".join(str(error).split()).split(". ")[0][:200]
