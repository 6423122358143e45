"""Iterative Reasoning Preference Optimization (arXiv 2404.19733), one module per box of its Figure 1."""

import logging
import warnings

# transformers asks for widgets in a notebook; its progress bars are off.
warnings.filterwarnings("ignore", message="IProgress")
# Where bitsandbytes is installed, peft and trl import it, and it warns of the lack of a kernel that nothing here uses.
logging.getLogger("bitsandbytes.backends").setLevel(logging.ERROR)

__version__ = "0.1.0"
