"""A run as one HTML file (`irpo report`), and a problem's samples as a table for a notebook. Reads files only.

`folder` reads a run, `ratios` asks its models, `images` draws, `command` says how to make the run again, and `page`
puts the file together. What HTML there is stands in `page.html`, `macros.html` and `table.html`, which `templates`
reads; `page.js` makes the sample browser.
"""

from irpo_lib.report.table import sample_table

__all__ = ["sample_table"]
