"""What the notebooks use to teach: the checker of exercises, and the package's source as they show it."""

from irpo_lib.course.check import check
from irpo_lib.course.source import show_source

__all__ = ["check", "show_source"]
