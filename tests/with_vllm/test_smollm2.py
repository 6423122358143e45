"""A real language model, SmolLM2-135M-Instruct, in the real engine."""

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here: `make test-vllm` has an environment with it")

from helpers import greedy_of_transformers

from irpo_lib.engines import vllm
from irpo_lib.models.load import encode_prompt, end_token_id, load_model, load_tokenizer

QUESTIONS = ["What is the capital of France?", "What is 3 + 4?", "Name three animals.", "Why is the sky blue?"]


def test_greedy_of_a_real_model_is_that_of_transformers_token_for_token(smollm2):
    tokenizer = load_tokenizer(smollm2)
    end, prompts = end_token_id(tokenizer), [encode_prompt(tokenizer, q) for q in QUESTIONS]
    engine = vllm.load_engine(smollm2, "float32")
    wanted = {"n": 1, "temperature": 0.0, "top_p": 1.0, "max_tokens": 32, "stop_token_ids": [end]}
    found = dict(vllm.generate(engine, prompts, range(len(prompts)), **wanted))
    model = load_model(smollm2, "float32")
    for i, prompt in enumerate(prompts):
        assert found[i][0].token_ids == greedy_of_transformers(model, prompt, 32, end)
    assert "Paris" in tokenizer.decode(found[0][0].token_ids)
