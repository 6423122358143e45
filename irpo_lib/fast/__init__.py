"""What makes sampling and scoring fast and changes nothing of what they compute; `generation` and `logprobs` use it."""
