"""mini-llama's tokenizer: whole words, single digits, and a chat template of Llama-2's form."""

from collections.abc import Iterable

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

#: A word, digit or sign carries the space before it, so that joining tokens gives the text back.
PIECES = r" ?\\?[A-Za-z]+| ?\d| ?[^\sA-Za-z\d]|\s"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + message['content'] | trim + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] | trim + eos_token }}{% endif %}"
    "{% endfor %}"
)


def build_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A word-level tokenizer whose vocabulary is every piece of `texts` plus all printable characters."""
    splitter = pre_tokenizers.Split(Regex(PIECES), "isolated")
    pieces = {space + chr(c) for c in range(33, 127) for space in ("", " ")} | {" ", "\n"}
    for text in texts:
        pieces.update(piece for piece, _ in splitter.pre_tokenize_str(" " + text))
    special = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
    vocabulary = {piece: i for i, piece in enumerate([*special, *sorted(pieces)])}
    core = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = splitter
    core.decoder = decoders.Fuse()
    core.add_special_tokens(["<unk>", "<s>", "</s>"])
    core.add_tokens([AddedToken("[INST]", normalized=False), AddedToken("[/INST]", normalized=False)])
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", vocabulary["<s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="</s>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
