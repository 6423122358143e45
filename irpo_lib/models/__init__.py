"""How a model is loaded, cut up over processes, computed in, and saved."""
