"""CLIP's byte-level BPE, with merges learned so that every word of the domain is one token."""
from __future__ import annotations

import json
import re
from pathlib import Path

START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 77
WORD = re.compile(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+", re.I)


def byte_symbols() -> dict[int, str]:
    """GPT-2's and CLIP's reversible map from bytes to printable characters."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {b: chr(b) for b in keep}
    for b in range(256):
        if b not in table:
            table[b] = chr(256 + len(table) - len(keep))
    return table


def merge(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for s in symbols:
        if out and (out[-1], s) == pair:
            out[-1] += s
        else:
            out.append(s)
    return out


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """The most frequent pair first, until every (ASCII) word is whole."""
    split = [[*w[:-1], w[-1] + "</w>"] for w in words]
    merges: list[tuple[str, str]] = []
    while any(len(s) > 1 for s in split):
        count: dict[tuple[str, str], int] = {}
        for s in split:
            for pair in zip(s, s[1:]):
                count[pair] = count.get(pair, 0) + 1
        best = max(count, key=lambda p: (count[p], p))
        merges.append(best)
        split = [merge(s, best) for s in split]
    return merges


class Tokenizer:
    def __init__(self, vocab: dict[str, int], merges: list[tuple[str, str]]) -> None:
        self.vocab, self.bytes = vocab, byte_symbols()
        self.rank = {m: i for i, m in enumerate(merges)}

    @classmethod
    def learn(cls, words: list[str]) -> "Tokenizer":
        merges = learn_merges(words)
        base = list(dict(sorted(byte_symbols().items(), key=lambda kv: ord(kv[1]))).values())
        tokens = base + [s + "</w>" for s in base] + ["".join(m) for m in merges] + [START, END]
        return cls({t: i for i, t in enumerate(tokens)}, merges)

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        vocab = json.loads((folder / "vocab.json").read_text("utf-8"))
        lines = (folder / "merges.txt").read_text("utf-8").splitlines()[1:]
        return cls(vocab, [tuple(line.split()) for line in lines if line])

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "vocab.json").write_text(json.dumps(self.vocab, ensure_ascii=False), "utf-8")
        merges = "".join(f"{a} {b}\n" for a, b in self.rank)
        (folder / "merges.txt").write_text("#version: 0.2\n" + merges, "utf-8")

        def special(s: str) -> dict:
            return {"content": s, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}

        names = {"bos_token": special(START), "eos_token": special(END), "unk_token": special(END), "pad_token": END}
        (folder / "special_tokens_map.json").write_text(json.dumps(names, indent=2) + "\n")
        added = {k: {"__type": "AddedToken", **v} if isinstance(v, dict) else v for k, v in names.items()}
        config = {"add_prefix_space": False, **added, "do_lower_case": True, "errors": "replace",
                  "model_max_length": LENGTH, "tokenizer_class": "CLIPTokenizer"}
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")

    def bpe(self, word: str) -> list[str]:
        s = [self.bytes[b] for b in word.encode("utf-8")]
        s[-1] += "</w>"
        while len(s) > 1:
            best = min(zip(s, s[1:]), key=lambda p: self.rank.get(p, 1 << 30))
            if best not in self.rank:
                break
            s = merge(s, best)
        return s

    def encode(self, text: str) -> list[int]:
        """Start, the text's tokens, end, padded with end to the full length."""
        ids = [self.vocab[t] for w in WORD.findall(text.lower()) for t in self.bpe(w)][: LENGTH - 2]
        end = self.vocab[END]
        return [self.vocab[START], *ids, *[end] * (LENGTH - 1 - len(ids))]
