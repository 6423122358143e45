"""Iterative Reasoning Preference Optimization (arXiv 2404.19733), one module per box of its Figure 1."""

__version__ = "0.1.0"
