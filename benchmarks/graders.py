"""Graders: answers a second on one core."""

import statistics
import time

from benchmarks.table import Row
from irpo_lib.rewards import grade
from irpo_lib.tasks import math_answers

OPTIONS = ("melting of ice", "converging of crustal plates", "erosion by wind", "deposition of river sediments")
STEPS = "She sells 16 - 3 - 4 = 9 eggs a day. She makes 9 * 2 = 18 dollars. " * 5
ANSWERS = {
    "gsm8k": ["18", "$1,080.00", "**18 dollars**", "-3", "3/4", "16 to 18"],
    "arc": ["(B)", "B", "(B) converging of crustal plates", "The answer is (B).", "B or C", "none of them"],
    "math": [
        r"\boxed{\frac{12}{35}}",
        r"$\dfrac12$",
        r"(1, 2)",
        r"\left[1, \infty\right)",
        r"51\text{ cm}^2",
        "x^{2} + 1",
    ],
}
GOLD = {"gsm8k": "18", "arc": "B", "math": r"\frac{12}{35}"}
ROUNDS, AT_ONCE = 5, 3000


def main() -> list[Row]:
    """Prints them; there is no peer in the table."""
    print(f"graders, one core, median of {ROUNDS} rounds of {AT_ONCE} responses (responses/s):")
    for task, answers in ANSWERS.items():
        # Each answer is another one: normalised answers are cached.
        different = [answers[i % len(answers)].replace("1", str(1000 + i)) for i in range(AT_ONCE)]
        responses = [f"{STEPS}\nFinal answer: {answer}" for answer in different]
        rates = []
        for _ in range(ROUNDS):
            math_answers.normalise.cache_clear()
            started = time.perf_counter()
            for response in responses:
                grade(task, GOLD[task], response, OPTIONS if task == "arc" else None)
            rates.append(AT_ONCE / (time.perf_counter() - started))
        print(f"  {task:<6} {statistics.median(rates):8.0f}")
    return []
