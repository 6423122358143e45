"""A run as one HTML file (`irpo report`), and a problem's samples as a table for a notebook. Reads files only.

`folder` reads a run, `ratios` asks its models, `figures` draws, `command` says how to make the run again, and `page`
puts the file together from `page.html`, `page.css` and `page.js`.
"""

from irpo_lib.report.table import sample_table

__all__ = ["sample_table"]
