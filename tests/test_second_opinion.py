"""math-verify as a second opinion: right where it should be, and it can be stopped."""

import threading
import time

import pytest

from irpo_lib.tasks.second_opinion import second_opinion

pytest.importorskip("math_verify")


def test_it_does_algebra():
    golds = ["x+1", r"\frac{1}{2}", "5", "5", r"\sqrt{2}"]
    answers = ["1+x", "0.5", "6", None, r"\frac{2}{\sqrt{2}}"]
    assert second_opinion(golds, answers, seconds=20) == [True, True, False, False, True]


def test_what_takes_too_long_has_no_verdict_and_the_next_one_has():
    started = time.monotonic()
    assert second_opinion(["5", "5"], ["9^{9^{9^{9}}}", "5"], seconds=3) == [None, True]
    assert time.monotonic() - started < 60


def test_it_works_in_a_thread():
    found = []
    thread = threading.Thread(target=lambda: found.extend(second_opinion(["2"], ["4/2"], seconds=20)))
    thread.start()
    thread.join()
    assert found == [True]
