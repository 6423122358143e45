"""The grid that the figures and tables beside it are made from (`irpo reproduce`), and verdicts on the paper's claims.

Installed with the project as `irpo_reproduction`.
"""
