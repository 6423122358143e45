"""The course as a program, and the package's source as its notebooks show it."""

from irpo_lib.course.source import show_source

__all__ = ["show_source"]
