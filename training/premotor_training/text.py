"""Instructions: a small word tokenizer in the released folder's form, and the UMT5 encoder that turns tokens into rows.

The encoder is trained together with the transformer. The runtime attends max_sequence_length rows, of which all but the
prompt's are zero; equal keys can be one row that counts so many times, which is how training sees them.
"""

import json
import string
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import UMT5Config, UMT5EncoderModel

SPACE_MARK = "\u2581"
SPECIAL = ("<pad>", "</s>", "<unk>")
# Log probabilities: a known word beats its spelling, and any spelling beats an unknown token.
WORD_SCORE, CHARACTER_SCORE = -2.0, -8.0


def write_tokenizer(folder: Path, texts: list[str]) -> None:
    """Unigram over the words of the texts and all printable ASCII characters. Ids: pad 0, end 1, unknown 2.

    A word with its punctuation is a token of its own: "press red, then green; last blue" says in every word where in the
    order it stands. An encoder this small does not learn to read the order from the neighbours of equal tokens.
    """
    words = sorted({form for text in texts for word in text.split() for form in (word, word.rstrip(".,;:!?"))})
    vocabulary = [[token, 0.0] for token in SPECIAL]
    characters = string.ascii_letters + string.digits + string.punctuation
    vocabulary += [[character, CHARACTER_SCORE] for character in SPACE_MARK + characters]
    vocabulary += [[SPACE_MARK + word, WORD_SCORE] for word in words if word]
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    metaspace = {"type": "Metaspace", "replacement": SPACE_MARK, "prepend_scheme": "always", "split": True}
    end = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    parts = [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": token, **special} for i, token in enumerate(SPECIAL)],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [parts[0], end],
            "pair": [parts[0], end, parts[1], end],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}},
        },
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": vocabulary, "byte_fallback": False},
    }
    names = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    configuration = {**names, "extra_ids": 0, "model_max_length": 512, "tokenizer_class": "T5Tokenizer"}
    files = {"tokenizer.json": tokenizer, "tokenizer_config.json": configuration, "special_tokens_map.json": names}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def make_encoder(vocabulary: int, width: int = 64) -> UMT5EncoderModel:
    """Two layers, four heads; every layer has its own table of relative positions, as UMT5 has."""
    config = UMT5Config(
        vocab_size=vocabulary,
        d_model=width,
        d_kv=width // 4,
        d_ff=2 * width,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
        eos_token_id=1,
    )
    return UMT5EncoderModel(config)


class Prompts:
    """The fixed set of instructions of a training run as token ids; the empty one, for text dropout, comes last."""

    def __init__(self, tokenizer: Tokenizer, texts: list[str], rows: int):
        self.texts = [*dict.fromkeys(texts), ""]
        ids = [tokenizer.encode(text).ids for text in self.texts]
        longest = max(map(len, ids))
        if longest >= rows:
            raise ValueError(f"expected prompts shorter than max_sequence_length {rows}, found {longest} tokens")
        self.ids = torch.tensor([row + [0] * (longest - len(row)) for row in ids])  # [prompts, longest]
        self.mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
        # The bias of each row in the cross-attention: padding inside `longest` is hidden, one zero row is added that counts
        # for all padded rows of the runtime.
        padded = rows - self.mask.sum(1, keepdim=True)
        hidden = torch.zeros(self.mask.shape).masked_fill(self.mask == 0, -1e4)
        self.bias = torch.cat([hidden, padded.float().log()], dim=1)  # [prompts, longest + 1]

    def to(self, device: torch.device) -> "Prompts":
        """Moves the tensors; returns itself, as a module does."""
        self.ids, self.mask, self.bias = (tensor.to(device) for tensor in (self.ids, self.mask, self.bias))
        return self

    def index(self, text: str) -> int:
        return self.texts.index(text)

    def encode(self, encoder: UMT5EncoderModel) -> Tensor:
        """All prompts through the encoder, with the zero row behind: [prompts, longest + 1, text width]."""
        rows = encoder(input_ids=self.ids, attention_mask=self.mask).last_hidden_state * self.mask[..., None]
        return torch.nn.functional.pad(rows, (0, 0, 0, 1))
