"""A model in a .gguf file: converted once, whole or not at all, into the folder that everything else uses."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES
from helpers import irpo_run
from transformers import LlamaConfig, LlamaForCausalLM

from irpo_lib.iteration import Experiment
from irpo_lib.models.gguf import folder_from_gguf
from irpo_lib.models.load import encode_prompt, end_token_id, load_model, load_tokenizer, model_hash, resolve_model
from irpo_lib.stages.store import hash_file, read_json
from irpo_lib.terminal.errors import UserError

#: Not in `make check`: real files of weights, converted and cut off.
pytestmark = pytest.mark.slow

gguf = pytest.importorskip("gguf", reason="the package gguf is not installed")
PROMPT = "Question: Ann has 31 cups. Ann buys 5 more. How many cups does Ann have now?\nSolution:"


def tiny_llama(tied: bool = False) -> LlamaForCausalLM:
    """A random Llama whose weights bfloat16 can hold."""
    tokenizer, _, _ = ARCHITECTURES["llama-3"]()
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.3, tie_word_embeddings=tied,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    for weight in model.parameters():
        weight.data = weight.data.bfloat16().float()
    return model


def write_gguf(path: Path, model: LlamaForCausalLM, kinds: dict[str, str] | None = None) -> Path:
    """As llama.cpp's converter writes a Llama 3; `kinds` are the types of tensors, "F32" where none is given."""
    tokenizer, template, _ = ARCHITECTURES["llama-3"]()
    c, bpe = model.config, json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(c.num_hidden_layers)
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_freq_base(c.rope_parameters["rope_theta"])
    writer.add_vocab_size(c.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    writer.add_token_list(tokens)
    kind = gguf.TokenType
    writer.add_token_types(
        [kind.CONTROL if i in tokenizer.added_tokens_decoder else kind.NORMAL for i in range(len(tokens))]
    )
    writer.add_token_merges([" ".join(m) for m in bpe["merges"]])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_add_bos_token(True)
    writer.add_chat_template(template)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, c.num_hidden_layers)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and c.tie_word_embeddings and "output.weight" not in (kinds or {}):
            continue
        if ".q_proj" in name or ".k_proj" in name:  # llama.cpp turns pairs of neighbours
            heads = c.num_attention_heads if ".q_proj" in name else c.num_key_value_heads
            weight = weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
        name = names.get_name(name, try_suffixes=(".weight",))
        kind = gguf.GGMLQuantizationType[(kinds or {}).get(name, "F32")]
        writer.add_tensor(name, gguf.quants.quantize(weight.contiguous().numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def logits(model, ids) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


@pytest.fixture(scope="module")
def original() -> LlamaForCausalLM:
    return tiny_llama()


@pytest.fixture
def file(original, tmp_path) -> Path:
    return write_gguf(tmp_path / "tiny.gguf", original)


def test_the_folder_is_the_model_its_tokenizer_and_its_template(original, file):
    theirs, template, _ = ARCHITECTURES["llama-3"]()
    theirs.chat_template = template
    tokenizer, model = load_tokenizer(str(file)), load_model(str(file), "float32")
    ids = encode_prompt(tokenizer, PROMPT)
    assert ids == encode_prompt(theirs, PROMPT)
    assert tokenizer(PROMPT)["input_ids"] == theirs(PROMPT)["input_ids"]
    assert end_token_id(tokenizer) == theirs.convert_tokens_to_ids("<|eot_id|>")
    assert not model.config.tie_word_embeddings
    torch.testing.assert_close(logits(model, ids), logits(original, ids), rtol=1e-4, atol=1e-4)


def test_8_bits_are_as_near_as_8_bits_can_be(original, tmp_path):
    kinds = {f"blk.{n}.{part}.weight": "Q8_0" for n in range(2) for part in ("attn_q", "attn_k", "ffn_gate", "ffn_up")}
    file = write_gguf(tmp_path / "tiny.gguf", original, kinds)
    ids = encode_prompt(load_tokenizer(str(file)), PROMPT)
    found, expected = logits(load_model(str(file), "float32"), ids), logits(original, ids)
    assert 0 < (found - expected).abs().mean() < 0.05 * expected.std()


def test_a_matrix_that_was_written_twice_is_one_again_the_finer_one(tmp_path):
    model = tiny_llama(tied=True)
    once = load_model(str(write_gguf(tmp_path / "once.gguf", model)), "float32")
    twice = {"token_embd.weight": "Q4_0", "output.weight": "F32"}
    for n, kinds in enumerate((twice, dict(zip(twice, reversed(twice.values()), strict=True)))):
        found = load_model(str(write_gguf(tmp_path / f"{n}.gguf", model, kinds)), "float32")
        assert found.config.tie_word_embeddings
        assert found.num_parameters() == once.num_parameters()
        torch.testing.assert_close(logits(found, [5, 6, 7]), logits(once, [5, 6, 7]))


def test_it_is_made_once_and_says_of_what(file):
    folder = Path(resolve_model(str(file)))
    made = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    again = subprocess.run(
        [sys.executable, "-c", f"from irpo_lib.models.load import resolve_model; print(resolve_model({str(file)!r}))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert again.stdout.strip() == str(folder)
    assert {p.name: p.stat().st_mtime_ns for p in folder.iterdir()} == made
    said = read_json(folder / "stage.json")
    assert said["settings"] == {"file": "tiny.gguf", "bytes": file.stat().st_size}
    assert said["inputs"] == {"sha256": hash_file(file)}


def test_another_file_of_the_same_name_is_refused(original, file):
    folder_from_gguf(str(file))
    write_gguf(file, tiny_llama(tied=True))
    with pytest.raises(UserError, match=r"tiny-from-gguf was made with other settings: .*sha256 \("):
        folder_from_gguf(str(file))


KILLED = """
import os, signal, sys, transformers
from irpo_lib.models.load import resolve_model
transformers.PreTrainedTokenizerBase.save_pretrained = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
resolve_model(sys.argv[1])
"""


def test_a_killed_conversion_leaves_nothing_that_is_taken_for_whole(original, file):
    found = subprocess.run([sys.executable, "-c", KILLED, str(file)], check=False)
    folder = file.with_name("tiny-from-gguf")
    assert found.returncode == -9
    assert file.with_name("tiny-from-gguf.partial").is_dir()
    assert not folder.exists()
    assert folder_from_gguf(str(file)) == str(folder)
    assert not file.with_name("tiny-from-gguf.partial").exists()
    found = logits(load_model(str(file), "float32"), [5, 6])
    torch.testing.assert_close(found, logits(original, [5, 6]), rtol=1e-4, atol=1e-4)


def test_what_lies_beside_the_file_is_not_read(original, file):
    (file.parent / "config.json").write_text('{"model_type": "gpt2"}')
    (file.parent / "tokenizer_config.json").write_text('{"chat_template": "other"}')
    assert load_model(str(file), "float32").config.model_type == "llama"
    assert load_tokenizer(str(file)).chat_template == ARCHITECTURES["llama-3"]()[1]


def test_the_loop_runs_from_the_file_and_refuses_another_one(small_config, file):
    config = replace(small_config, model=str(file), train_problems=8, max_steps=2, max_new_tokens=16)
    run = file.parent / "run"
    folder = Experiment(config, run).evaluate(1)
    assert model_hash(str(file)) == model_hash(resolve_model(str(file)))
    assert Experiment(replace(config, model=resolve_model(str(file))), run).evaluate(1) == folder
    other = write_gguf(file.parent / "other.gguf", tiny_llama(tied=True))
    with pytest.raises(UserError, match=r"generate was made with other settings: model \("):
        Experiment(replace(config, model=str(other)), run).generate(1)


# --- what cannot be read is one sentence, and nothing is left of it ---


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _no_gguf(path: Path) -> None:
    path.write_bytes(b"not a model at all" * 100)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _unknown(path: Path) -> None:
    writer = gguf.GGUFWriter(path, "unheard-of")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def _without_a_layer(path: Path) -> None:
    model = tiny_llama()
    model.config.num_hidden_layers = 3
    write_gguf(path, model)


@pytest.mark.parametrize("damage", [_cut, _no_gguf, _empty, _unknown, _without_a_layer])
def test_a_broken_or_unknown_file_is_one_sentence(damage, file):
    damage(file)
    with pytest.raises(UserError, match=r"tiny\.gguf: (no model can be loaded from it|the weights lack)") as error:
        load_tokenizer(str(file))
    assert len(str(error.value).splitlines()) == 1
    assert sorted(file.parent.iterdir()) == [file]


def test_a_broken_file_stops_irpo_run_before_any_work(file):
    _no_gguf(file)
    found = irpo_run(file, file.parent / "run")
    assert found.returncode == 1
    assert len(found.stderr.strip().splitlines()) == 1, found.stderr
    assert sorted(file.parent.iterdir()) == [file]


def test_no_file_and_no_package_are_one_sentence(file, monkeypatch):
    with pytest.raises(UserError, match=r"the model file .*none\.gguf does not exist"):
        load_model(str(file.with_name("none.gguf")), "float32")
    monkeypatch.setattr("irpo_lib.models.gguf.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package gguf: install it with `pip install -e '\.\[gguf\]'`"):
        load_model(str(file), "float32")
