r"""MATH's answers: each rule's example, what is equal, what is not, and that neither depends on how often one asks."""

import random
import re
from math import gcd

import pytest

from irpo_lib.rewards import grade
from irpo_lib.tasks.math_answers import RULES, boxed, normalise

EQUAL = {
    r"\frac{1}{2}": ["1/2", r"\frac12", r"\dfrac{1}{2}", "0.5", ".5", r"\tfrac12", r"$\frac{1}{2}$", r"\frac1{2}",
                     r"\frac{1}2", "0.50", "1 / 2", r"\boxed{\frac12}", "½", r"\cfrac{1}{2}"],
    "5": ["5.", "$5$", "5.0", r"5\text{ cm}", "5 cm", r"5\%", r"\$5", r"5^\circ", r"5^{\circ}", "5 degrees", "+5",
          "{5}", "5 square units",
          r"5\text{ square units}", r"\boxed{5}", r"\boxed 5", r"\fbox{5}", r"\text{5}", "5 cm^2",
          r"5\text{ cm}^2", r"5\,\text{cm}", r"5\mbox{ inches}", r"5\mathrm{cm}", "5 dollars", "5%", r"\(5\)", r"\[5\]",
          r"\displaystyle 5", "5°", "5 miles per hour", r"5~\text{m/s}", "$$5$$", r"so \boxed{4} or \boxed{5}.", "5,"],
    "1000": ["1,000", "1{,}000", r"1\,000", r"1\!000", r"1,\!000", "1000.00", r"\$1,000"],
    r"-\frac{1}{2}": [r"\frac{-1}{2}", "-1/2", "-0.5", "-.5", "−1/2", r"-\dfrac{1}{2}", r"\frac{1}{-2}", "- 1/2"],
    r"\sqrt{3}": [r"\sqrt3", r"\sqrt 3", "√3", "sqrt(3)", "sqrt{3}", r"\sqrt{ 3 }"],
    "(1.5,-2]": [r"(\frac32, -2]", r"\left(3/2,-2.0\right]"],
    "(1,2)": ["(1, 2)", r"\left(1,2\right)", r"\left( 1, 2 \right)", r"(1,\,2)", "( 1 , 2 )", r"\bigl(1,2\bigr)"],
    r"\frac{3\pi}{4}": [r"3\pi/4", r"\frac{3 \pi}{4}", "3π/4", r"\dfrac{3\pi}{4}"],
    r"\frac{\pi}{2}": [r"\pi/2", r"\frac\pi2", "π/2", r"\frac{\pi}2"],
    r"\frac{\sqrt{3}}{2}": [r"\sqrt{3}/2", r"\frac{\sqrt3}{2}", r"\dfrac{\sqrt{3}}{2}", r"\frac{\sqrt{3}}2"],
    r"\frac{x+1}{2}": ["(x+1)/2", r"\dfrac{x+1}{2}"],
    r"\frac{a}{b}": ["a/b", r"\frac ab", r"\frac{a}b"],
    r"\frac{-x}{2}": [r"-\frac{x}{2}"],
    r"1\frac{1}{2}": ["3/2", "1.5", "1 1/2", r"\frac{3}{2}", r"1\dfrac12"],
    r"\text{even}": ["even", r"\textbf{even}", r"\mathrm{even}", "Even"],
    r"\text{(A)}": ["A", "(A)", r"\text{A}", r"\textbf{(A)}"],
    "28_9": ["28_{9}", "28_{9}.", "$28_9$"],
    "x^2+1": ["x^{2}+1", "x^2 + 1", "x² + 1"],
    r"[0,\infty)": [r"[0, \infty)", r"[0,+\infty)", r"\left[0,\infty\right)", "[0,∞)", r"x \in [0,\infty)"],
    r"(-\infty, 2)\cup(3,\infty)": [r"(-\infty,2) \cup (3,\infty)", "(-∞,2)∪(3,∞)"],
    r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}": [r"\begin{pmatrix}1\\2\end{pmatrix}"],
    r"6\cdot 10^3": [r"6 \times 10^3", r"6\times10^{3}", "6*10^3"],
    r"2\pi": ["2 pi", "2π", r"2 \pi"],
    "7": ["x = 7", "x=7.", "(7)", r"\left(7\right)"],
    "6x^2": [r"6\cdot x^2", r"6 \times x^{2}"],
    r"2\sqrt{2}": [r"2 \cdot \sqrt{2}", r"2*\sqrt2"],
    r"\mathbb{R}": [r"\Bbb{R}", r"\mathbb R", "ℝ"],
    r"\emptyset": [r"\varnothing", "∅"],
    "y=2x+3": ["y = 2x + 3"],
    "3,5": ["3, 5", "3 and 5", r"3\text{ and }5", r"3 \text{ or } 5", r"3, \text{ and } 5"],
    r"\{1,2\}": [r"\{1, 2\}", r"\left\{1,2\right\}"],
    r"x \le 2": [r"x\leq 2", "x ≤ 2"],
    r"10\text{ inches}": ["10", "10 inches"],
    r"\text{June 20}": ["June 20"],
    "1,-2": ["x = 1, x = -2", "x=1 or x=-2"],
    "x=6": ["x = 6", "x=6.", "6"],
    r"\frac{2}{3}": [r"{2 \over 3}"],
    r"\frac{\pi}{3}": [r"\frac13\pi", r"\frac{1}{3}\pi"],
    r"\frac{3\sqrt{2}}{5}": [r"\frac35\sqrt2"],
    r"0.\overline{3}": [r".\overline{3}", r"0.\overline3"],
    r"\sqrt[3]{4}": [r"\sqrt[3]4"],
    r"\begin{pmatrix} 1/2 \\ -3 \end{pmatrix}": [r"\begin{pmatrix} \dfrac12 \\ -3 \end{pmatrix}",
                                                  r"\begin{pmatrix} 0.5 \\ -3.0 \\ \end{pmatrix}"],
}  # fmt: skip
DIFFERENT = [
    ("28_9", "28"), ("(1,2)", "1,2"), ("[0,1)", "(0,1)"), ("[0,1]", "[0,1)"), ("(1,2)", "(2,1)"),
    ("3,5", "5,3"), ("x=5", "y=5"), ("y=2x", "2x"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \end{pmatrix}"),
    (r"\frac13\pi", r"\frac{1}{3\pi}"),
    ("5", "-5"), (r"\frac12", r"\frac13"), ("1 1/2", "11/2"), ("y=2x+3", "2x+3"), ("x=5", "6"), ("x>5", "5"), 
   ("0.5", "5"),
    (r"\sqrt{2}", "2"), (r"2\pi", "2"), ("x^2", "x2"), ("5", "5x"), ("12", "1,2"), ("1000", "1,00"), ("10^{3}", "103"),
    ("3", "3!"), ("50", "0.50"), ("A", "B"), ("6", "6,6"), ("7", "7 and 8"), ("35", "3 or 5"), ("x+1", "x1"),
    ("2", r"\frac{2}{0}"), ("1+x", "x+1"), (r"\sqrt{12}", r"\sqrt{1}2"), ("5", "5 or 6"), (r"\{1,2\}", "(1,2)"),
    ("0.333", r"\frac{1}{3}"), (r"\frac12", r"\frac24"), ("2", r"\frac42"), ("5", "5/1"),
    ("3.14", r"\pi"), ("10", "10^2"), ("x<2", "x>2"), (r"x \le 2", "x<2"),
]  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=[r[0] for r in RULES])
def test_each_rule_does_what_its_example_says(rule):
    name, before, after, pattern, replacement = rule
    change = (lambda m: m[0].replace(",", "")) if name == "thousands" else replacement
    assert re.sub(pattern, change, before).strip() == after
    assert normalise(before) == normalise(after)


@pytest.mark.parametrize("gold", EQUAL, ids=str)
def test_equal_answers(gold):
    for answer in EQUAL[gold]:
        assert grade("math-mini", gold, f"Steps.\nFinal answer: {answer}"), (answer, boxed(answer), boxed(gold))
        if "boxed" not in answer and "fbox" not in answer:
            assert grade("math-mini", gold, f"Final answer: $\\boxed{{{answer.strip('$')}}}$."), answer


@pytest.mark.parametrize(
    ("line", "gold", "right"),
    [
        (r"The final answer is $\frac{2}{7}$. I hope it is correct.", r"\frac{2}{7}", True),
        (r"The final answer is: $(3,\infty)$. I hope it is correct.", r"(3,\infty)", True),
        (r"So, the answer is $12\text{ cm}$", "12", True),
        (r"$x^2-1$. I hope this is correct!", "x^2-1", True),
        (r"The final answer is \boxed{9}. I hope it is correct.", "9", True),
        ("The final answer is 9. I hope it is correct", "9", True),
        ("The final answer is:\n$$9$$", "9", True),
        (r"The final answer is $9$. I hope it is correct.", "90", False),
        (r"The final answer is not $9$. I hope it is correct.", "9", False),
        (r"The final answer is $9$ or $10$. I hope it is correct.", "9", False),
        (r"The final answer is $9$ where $x > 0$. I hope it is correct.", "9", False),
        ("The final answer is odd, and so is $9$.", "9", False),
        ("The first answer is $9$.", "9", False),
        ("The final answer is $$. I hope it is correct.", "", False),
        ("I hope it is correct.", "", False),
    ],
)
def test_words_around_the_answer_do_not_count(line, gold, right):
    assert grade("math-mini", gold, f"Steps.\nFinal answer: {line}") == right


@pytest.mark.parametrize(("gold", "answer"), DIFFERENT)
def test_different_answers(gold, answer):
    assert not grade("math-mini", gold, f"Final answer: {answer}")
    assert not grade("math-mini", answer, f"Final answer: {gold}")


def test_no_two_groups_of_equal_answers_are_equal():
    forms = [boxed(gold) for gold in EQUAL]
    assert len(set(forms)) == len(forms)


@pytest.mark.parametrize("answer", ["", "  ", "$$", r"\boxed{}", r"\boxed{ }", r"\boxed{5", "\\boxed", r"\text{}"])
def test_an_empty_answer_is_never_right(answer):
    assert boxed(answer) is None
    for gold in ("", answer, "5"):
        assert not grade("math-mini", gold, f"Final answer: {answer}")


def test_a_canonical_form_is_its_own_canonical_form():
    rng = random.Random(0)
    pieces = ["1", "2", "0.5", "x", "+", "-", "/", r"\frac", "{", "}", "(", ")", ",", " ", r"\sqrt", "^", "_", r"\pi",
              r"\text{ cm}", "$", r"\%", ".", "=", r"\left", r"\right", "A", "and "]  # fmt: skip
    stable = total = 0
    for _ in range(3000):
        once = normalise("".join(rng.choices(pieces, k=rng.randrange(1, 9))))
        total += once is not None
        stable += once is not None and normalise(once) == once
    assert stable / total > 0.95


def test_exact_values_over_random_fractions():
    rng = random.Random(1)
    for _ in range(500):
        p, q, k = rng.randint(1, 99), rng.randint(1, 99), rng.randint(1, 9)
        gold = f"\\frac{{{p}}}{{{q}}}"
        reduced = gcd(p, q) == 1
        assert grade("math-mini", gold, f"Final answer: {p}/{q}")
        assert grade("math-mini", gold, f"Final answer: \\boxed{{\\dfrac{{{k * p}}}{{{k * q}}}}}") == (k == 1)
        if reduced and q > 1 and 100 % q == 0:
            assert grade("math-mini", gold, f"Final answer: {p * 100 // q / 100}")
        assert not grade("math-mini", gold, f"Final answer: {p + q}/{q}")
