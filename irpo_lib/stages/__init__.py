"""How a box of Figure 1 becomes a folder on disk: there whole or not at all, with its files and records."""
