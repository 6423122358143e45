"""Iterative Reasoning Preference Optimization (arXiv 2404.19733), one module per box of its Figure 1."""

import warnings

# transformers asks for widgets in a notebook; its progress bars are off.
warnings.filterwarnings("ignore", message="IProgress")

__version__ = "0.1.0"
