"""A response's ids behind its prompt, for families of tokenizers made on the spot, at thousands of borders."""

from __future__ import annotations

import copy
import functools
import json
import random
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from rlhf_lightning.model.prompt_encoding import InputFormat, TextEncoder
from rlhf_lightning.tokenization.boundary import decode_continuation, is_text_start, plain_ids, start_ids
from rlhf_lightning.tokenization.chat_template import prompt_ids
from rlhf_lightning.tokenization.conversation import UnstableTemplate, conversation_ids
from rlhf_lightning.tokenization.encoding import Rendered, encode
from tests.fixtures.chat_templates import SHAPES, chat, template_ids

WORDS = (
    "the kettle boils water quickly Once upon a time there was little girl named Lily don't it's 1234 3.14 naïve café Zoë Ünïcode "
    "日本語 テキスト привет мир עברית 🙂 👩\u200d👩\u200d👧 e\u0301te\u0301 x=y; foo(bar) «quoted» — … \\n"
)
SPECIAL = "<s> </s> <|end|> <think> </think> [SEP] [MASK]"
BLANKS = [" "] * 12 + ["\n", "\n\n", "  ", "\t", " \n", ", ", ". ", ":\n", "", "", "-", "'"]
BORDERS = 700
"""Of each family: sixteen make more than 10,000."""
GPT4 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPACE = "▁"


def texts(count: int, seed: int, words: str) -> list[str]:
    rng, choices = random.Random(seed), words.split()
    return ["".join(rng.choice(choices) + rng.choice(BLANKS) for _ in range(rng.randint(1, 12))) for _ in range(count)]


CORPUS = [*texts(400, 1, WORDS), *[WORDS[:124]] * 20]


def byte_level(prefix: bool = False, split: str | None = None, nfc: bool = False, bytes_in_front: bool = False) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC() if nfc else made.normalizer
    level = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=split is None)
    made.pre_tokenizer = level if split is None else pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), "isolated"), level])
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    return made


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def sentence_piece_bpe(prefix: str) -> Tokenizer:
    """BPE with byte fallback: prefix "legacy" and "none" by normalizers (Llama 2, Gemma), the others by a Metaspace pre-tokenizer."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.normalizer = normalizers.Replace(" ", SPACE)
    trained.pre_tokenizer = pre_tokenizers.Split(Regex(f"{SPACE}?[^{SPACE}]+|{SPACE}+"), "isolated")
    special = ["<unk>", "<s>", "</s>", *BYTES]
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=800, special_tokens=special, show_progress=False, limit_alphabet=70))
    state = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in state["merges"]]
    made = Tokenizer(models.BPE(state["vocab"], merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    replace, strip = normalizers.Replace(" ", SPACE), []
    if prefix == "legacy":
        made.normalizer, strip = normalizers.Sequence([normalizers.Prepend(SPACE), replace]), [decoders.Strip(" ", 1, 0)]
    elif prefix == "none":
        made.normalizer = replace
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme=prefix, split=False)
        strip = [] if prefix == "never" else [decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    return made


def unigram(scheme: str, lossy: bool = False, byte_fallback: bool = False) -> Tokenizer:
    made = Tokenizer(models.Unigram())
    if lossy:  # T5, XLM-R
        made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")])
    made.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme=scheme)
    made.decoder = decoders.Metaspace(SPACE, prepend_scheme=scheme)
    special = ["<unk>", "<s>", "</s>", *(BYTES if byte_fallback else [])]
    trainer = trainers.UnigramTrainer(vocab_size=700, special_tokens=special, unk_token="<unk>", show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    if byte_fallback:
        pieces = [tuple(piece) for piece in json.loads(made.to_str())["model"]["vocab"]]
        by_bytes = Tokenizer(models.Unigram(pieces, 0, byte_fallback=True))
        by_bytes.pre_tokenizer = made.pre_tokenizer
        by_bytes.add_special_tokens(["<unk>", "<s>", "</s>"])
        by_bytes.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
        return by_bytes
    return made


def word_piece(lowercase: bool) -> Tokenizer:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=700, special_tokens=special, show_progress=False))
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return made


def begun(made: Tokenizer, *first: str) -> Tokenizer:
    """The tokenizer with tokens of its template before each text."""
    made.add_special_tokens(list(first))
    ids = [(token, made.token_to_id(token)) for token in first]
    made.post_processor = processors.TemplateProcessing(single=f"{' '.join(first)} $A", special_tokens=ids)
    return made


def with_added(made: Tokenizer) -> Tokenizer:
    made.add_special_tokens([AddedToken("<|end|>", rstrip=True), AddedToken("[MASK]", lstrip=True)])
    made.add_tokens([AddedToken("<think>", rstrip=True, normalized=False), AddedToken("</think>", lstrip=True, normalized=False)])
    made.add_tokens([AddedToken("foo", single_word=True, normalized=False), AddedToken("  ", normalized=False)])
    return made


FAMILIES: dict[str, Callable[[], Tokenizer]] = {
    "byte-level": byte_level,
    "byte-level with prefix space": lambda: byte_level(prefix=True),
    "byte-level, NFC, GPT-4's words": lambda: byte_level(split=GPT4, nfc=True),
    "byte-level with added tokens": lambda: begun(with_added(byte_level()), "[gMASK]", "<sop>"),
    "SentencePiece BPE, Llama 2": lambda: begun(sentence_piece_bpe("legacy"), "<s>"),
    "SentencePiece BPE, Llama 2, added tokens": lambda: begun(with_added(sentence_piece_bpe("legacy")), "<s>"),
    "SentencePiece BPE without prefix, Gemma": lambda: begun(sentence_piece_bpe("none"), "<s>"),
    "Metaspace BPE, first": lambda: begun(with_added(sentence_piece_bpe("first")), "<s>"),
    "Metaspace BPE, always": lambda: begun(sentence_piece_bpe("always"), "<s>"),
    "Metaspace BPE, never": lambda: sentence_piece_bpe("never"),
    "unigram, always": lambda: unigram("always"),
    "unigram, first, added tokens": lambda: with_added(unigram("first")),
    "unigram, never, bytes": lambda: unigram("never", byte_fallback=True),
    "unigram, always, NFKC, blanks merged": lambda: unigram("always", lossy=True),
    "WordPiece, lower case": lambda: word_piece(True),
    "WordPiece, cased": lambda: word_piece(False),
}  # fmt: skip


@functools.cache
def tokenizer_of(family: str) -> Any:
    made = FAMILIES[family]()
    names = {"sep_token": "[SEP]", "cls_token": "[CLS]"} if "WordPiece" in family else {"eos_token": "</s>"}
    names |= {} if "byte-level" in family else {"unk_token": "[UNK]" if "WordPiece" in family else "<unk>"}
    names |= {"bos_token": "<s>"} if made.token_to_id("<s>") is not None and made.post_processor is not None else {}
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


def borders(count: int, seed: int) -> list[tuple[str, str]]:
    """Texts cut anywhere, inside words, blanks, graphemes and special tokens too, and a few with nothing on one side."""
    rng = random.Random(seed)
    found = [
        ("", "a b"),
        ("a b", ""),
        ("", ""),
        ("a ", "b"),
        ("a", " b"),
        ("a\n", "b"),
        ("e", "\u0301a"),
        ("a <thi", "nk> b"),
        ("a </", "s>"),
    ]
    for text in texts(count - len(found), seed, f"{WORDS} {SPECIAL}"):
        at = rng.randint(0, len(text))
        found.append((text[:at], text[at:]))
    return found


def plain(tokenizer: Any, rows: list[str]) -> list[list[int]]:
    return encode(tokenizer, [Rendered.plain(row) for row in rows])


def normal(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def without_marks(text: str) -> str:
    return "".join(letter for letter in unicodedata.normalize("NFD", normal(text)) if not unicodedata.combining(letter))


def composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


ADDED = ("<think>", "</think>", "<|end|>", "foo")
INEXACT = {
    "unigram, always, NFKC, blanks merged": 0.05,
    "unigram, first, added tokens": 0.05,
    "Metaspace BPE, first": 0.01,
    "byte-level with added tokens": 0.01,
    "SentencePiece BPE, Llama 2, added tokens": 0.05,
}
"""The share of borders at which a tokenizer that drops blanks (merged ones, or those beside an added token) can't write the text."""


@pytest.mark.parametrize("family", FAMILIES)
def test_prompt_and_response_stand_for_the_text_and_have_its_ids_where_a_token_ends_between_them(family):
    tokenizer = tokenizer_of(family)
    pairs = borders(BORDERS, seed=len(family))
    rows = TextEncoder(tokenizer, InputFormat(), 10**6).encode_all(pairs)
    joined, prompts = plain(tokenizer, [p + r for p, r in pairs]), plain(tokenizer, [p for p, _ in pairs])
    start, inexact, natural = start_ids(tokenizer), [], 0
    for (prompt, response), row, whole, asked in zip(pairs, rows, joined, prompts, strict=True):
        assert row.before == prompt_ids(tokenizer, prompt)
        opening = row.before[: len(row.before) - len(asked)]
        assert opening == start or not prompt
        ids = [*asked, *row.answer]
        if whole[: len(asked)] == asked:
            natural += 1
            assert ids == whole, (prompt, response)
        if tokenizer.unk_token_id in ids:
            continue
        text, exact = tokenizer.decode(ids), tokenizer.decode(whole)
        if composed(text) not in (composed(exact), composed(prompt + response)):
            inexact.append((prompt, response, text, exact))
            assert normal(text) == normal(exact), inexact[-1]
        elif text == exact == prompt + response and not prompt.endswith(ADDED) and tokenizer.unk_token_id not in row.answer:
            begins = is_text_start(tokenizer, prompt, row.before[-1] if row.before else -1)
            assert decode_continuation(tokenizer, row.answer, begins) == response, (prompt, response)
    assert natural > BORDERS / 4
    assert len(inexact) <= BORDERS * INEXACT.get(family, 0.0), inexact[:5]


@pytest.mark.parametrize("family", [family for family in FAMILIES if "BPE" in family or "byte-level" in family])
def test_the_characters_of_a_responses_tokens_are_those_that_they_stand_for(family):
    tokenizer = tokenizer_of(family)
    rows = TextEncoder(tokenizer, InputFormat(), 10**6)
    for prompt, response in borders(60, seed=5):
        row = rows.encode((prompt, response))
        first, spans = rows.offsets((prompt, response))
        assert first == len(row.before)
        assert len(spans) == len(row.answer)
        assert all(0 <= start <= end <= len(response) for start, end in spans)
        assert spans == sorted(spans)
        covered = "".join(response[i] for i in range(len(response)) if any(a <= i < b for a, b in spans))
        assert without_marks(covered) == without_marks(response)  # a mark may be composed with a letter of the prompt


def test_a_prompt_without_a_response_and_a_response_without_a_prompt():
    tokenizer = tokenizer_of("SentencePiece BPE, Llama 2")
    rows = TextEncoder(tokenizer, InputFormat(), 100)
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert rows.encode(("a b", "")).ids == [bos, *plain(tokenizer, ["a b"])[0], eos]
    assert rows.encode(("", "a b")).ids == [bos, *plain(tokenizer, ["a b"])[0], eos]
    assert rows.encode(("", "")).ids == [bos, eos]


@pytest.mark.parametrize(
    ("prompt", "response"),
    [("Once upon a time", " there was"), ("the kettle:\n", "Once upon"), ("Lily ", "named"), ("the ket", "tle boils"), ("a", "\n\nb")],
)
def test_llamas_tokenizer_adds_no_space_of_its_own(prompt, response):
    tokenizer = tokenizer_of("SentencePiece BPE, Llama 2")
    row = TextEncoder(tokenizer, InputFormat(), 100).encode((prompt, response))
    assert tokenizer.decode(row.ids, skip_special_tokens=True) == prompt + response
    assert plain_ids(tokenizer, prompt, response) == [*row.before, *row.answer]
    assert decode_continuation(tokenizer, row.answer) == response


def test_a_space_behind_a_special_token_is_the_tokenizers_own_where_it_begins_anew_there():
    for family, response in (("SentencePiece BPE, Llama 2", "there"), ("SentencePiece BPE without prefix, Gemma", " there")):
        tokenizer = tokenizer_of(family)
        ids = plain(tokenizer, [response])[0]
        assert decode_continuation(tokenizer, ids, is_text_start(tokenizer, "a", tokenizer.eos_token_id)) == response
    assert decode_continuation(tokenizer_of("SentencePiece BPE, Llama 2"), ids) == " there"


@pytest.mark.parametrize(
    ("family", "start"),
    [
        ("byte-level", []),
        ("byte-level with added tokens", ["[gMASK]", "<sop>"]),
        ("SentencePiece BPE, Llama 2", ["<s>"]),
        ("WordPiece, cased", ["[CLS]"]),
    ],
)
def test_a_row_begins_with_all_that_the_tokenizer_puts_before_a_text_and_keeps_it_when_cut(family, start):
    tokenizer = tokenizer_of(family)
    ids = tokenizer.convert_tokens_to_ids(start)
    assert start_ids(tokenizer) == ids
    assert prompt_ids(tokenizer, "the kettle")[: len(ids)] == ids
    row = TextEncoder(tokenizer, InputFormat(), len(ids) + 4).encode(("the kettle boils water quickly", " Lily"))
    assert row.is_cut
    assert row.before[: len(ids)] == ids


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_has_the_ids_that_the_tokenizer_gives_it_and_no_special_token(family):
    """Unigram models know "</s>" as a piece of a text, too."""
    tokenizer = tokenizer_of(family)
    special = {*tokenizer.all_special_ids, *(i for i, token in tokenizer.added_tokens_decoder.items() if token.special)}
    special -= {tokenizer.unk_token_id}
    rows = [prompt + response for prompt, response in borders(100, 3)]
    theirs = tokenizer(rows, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    for text, ids, expected in zip(rows, plain(tokenizer, rows), theirs, strict=True):
        assert special.isdisjoint(ids)
        assert ids == expected or not special.isdisjoint(expected)
        assert normal(tokenizer.decode(ids)) == normal(tokenizer.decode(expected)) or tokenizer.unk_token_id in ids, text
    clean = TextEncoder(tokenizer, InputFormat(), 200).encode(("a", "b")).ids
    for prompt, response in (("a <s>", "</s> b"), ("a <|en", "d|> b"), ("[MASK]", "[SEP]"), ("<|end|>", "</s>")):
        ids = TextEncoder(tokenizer, InputFormat(), 200).encode((prompt, response)).ids
        assert [i for i in ids if i in special] == [i for i in clean if i in special]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_in_a_conversation_follows_the_ids_that_a_sampler_reads_or_the_conversation_is_to_be_split(family):
    tokenizer = copy.deepcopy(tokenizer_of(family))
    tokenizer.add_special_tokens({"additional_special_tokens": list(SHAPES["ChatML"].special)})
    tokenizer.chat_template, rng, stable = SHAPES["ChatML"].template, random.Random(5), 0
    for _ in range(20):
        messages = chat(*texts(4, rng.randrange(10**6), WORDS))
        try:
            ids, mask = conversation_ids(tokenizer, messages)
        except UnstableTemplate:
            continue
        stable += 1
        assert ids == template_ids(tokenizer, messages)
        starts = [i for i, learned in enumerate(mask) if learned and not mask[i - 1]]
        assert [ids[:start] for start in starts] == [prompt_ids(tokenizer, messages[: 2 * n + 1]) for n in range(2)]
    assert stable or "byte-level" not in family
