"""The grammar of task=reviews: the facts about each product, and sentence frames.

FACTS and FRAMES produce every sentence; a review is parsed by looking its sentences up in GRAMMAR.
"""

from __future__ import annotations

from dataclasses import dataclass

# Facts about all products of a category: products: aspects | evidence | drawbacks.
FACTS = """
a kettle, a toaster, a blender, a coffee machine, a rice cooker, a mixer:
  steel thick/shiny, switch soft/simple, cleaning easy/quick | serves four people; is ready fast; makes no mess | cord short, base slippery
a phone, a laptop, a camera, a tablet, a smart watch, a radio:
  screen bright/sharp, menu clear/modern, charger quick/small | lasts two days; starts at once; never gets hot | case heavy, sound low
a jacket, a scarf, a hat, a raincoat, a sweater, a shirt:
  fabric soft/thick, stitching neat/strong, colour deep/lively | keeps me warm; washes well; dries fast | label scratchy, cut tight
a backpack, a suitcase, a handbag, a sports bag, a school bag, a tote bag:
  zip smooth/strong, strap wide/soft, pocket deep/handy | stays dry in the rain; fits under a seat; holds enough | lining thin, buckle stiff
"""

# The situations of prompts, each with the remarks that fit only it.
SITUATIONS = """
for a student: It costs very little. | It suits a small budget. | It was half the usual price.
as a gift: My friend loved it at once. | It was a great surprise. | It came with a nice card.
for a family: Our children love it too. | All of us share it. | Even the kids can use it.
bought used: The seller was honest. | It works like a new one. | The last owner took good care.
"""

# Sentence frames of facts.
FRAMES = """
opener: I bought this {} last month. | This {} replaced my old one. | I have had this {} for a year. | My {} came on Monday.
aspect: The {0} is very {1}. | I like the {1} {0}. | I love how {1} the {0} is.
evidence: It {}. | Mine {}. | I found that it {}.
drawback: The {0} is a little {1}. | Sadly the {0} is rather {1}. | Still, the {0} is a bit {1}.
recommendation: I recommend this {}. | You should try this {}. | I would get this {} again.
"""

# Sentences about any product.
ANYWHERE = """
recommendation: I recommend it. | I would buy it again. | It is worth the money. | I would choose it again.
vague: It is nice. | It is good. | I like it. | It is okay. | It works fine. | It is not bad. | It is what it is. | All is fine.
  | I am happy with it. | It does the job. | It is a good thing. | What can I say? | It is all right. | I have no complaints.
spam: Buy it now!!! | BEST THING EVER!!! | Click my link!!! | GET ONE TODAY!!! | Five stars!!! | You need this!!! | WOW!!!
  | Visit my shop!!! | Follow me for deals!!! | Do not wait!!! | So so good!!! | Tell all your friends!!!
off_topic: It rained all weekend. | My cat is asleep. | I had soup for lunch. | The bus was late again. | My uncle lives in Rome.
  | Tomorrow is Tuesday. | The news was dull today. | I cannot find my keys. | Our street is noisy. | We saw a film last night.
  | My tooth hurts. | The baker is on holiday. | I should call my mother. | The stairs are wet.
"""


@dataclass(frozen=True)
class Meaning:
    """A sentence's kind, its fact (equal for two wordings), and the products or situations it is true of."""

    kind: str
    fact: str
    subjects: frozenset[str]


def _entries(text: str) -> dict[str, list[str]]:
    """Parse `name: a | b` lines as lists by name; an indented line continues the one above."""
    lines = text.strip().replace("\n  ", " ").splitlines()
    return {name: sentences.split(" | ") for name, _, sentences in (line.partition(": ") for line in lines)}


def _facts() -> list[tuple[str, str, str, tuple[str, ...]]]:
    """Parse FACTS as (product, kind, fact, words for the frames of that kind)."""
    facts: list[tuple[str, str, str, tuple[str, ...]]] = []
    for line in FACTS.strip().replace("\n  ", " ").splitlines():
        products, _, description = line.partition(": ")
        aspects, evidence, drawbacks = description.split(" | ")
        for product in products.split(", "):
            facts += [(product, kind, "", (product.partition(" ")[2],)) for kind in ("opener", "recommendation")]
            for noun, qualities in (aspect.split(" ") for aspect in aspects.split(", ")):
                facts += [(product, "aspect", noun, (noun, quality)) for quality in qualities.split("/")]
            facts += [(product, "evidence", deed, (deed,)) for deed in evidence.split("; ")]
            facts += [(product, "drawback", flaw, tuple(flaw.split(" "))) for flaw in drawbacks.split(", ")]
    return facts


def _grammar() -> dict[str, Meaning]:
    """Build every sentence with its meaning; a sentence of several products is about all of them."""
    grammar: dict[str, Meaning] = {}
    frames = _entries(FRAMES)
    for product, kind, fact, words in _facts():
        for sentence in (frame.format(*words) for frame in frames[kind]):
            earlier = grammar[sentence].subjects if sentence in grammar else frozenset()
            grammar[sentence] = Meaning(kind, fact or sentence, earlier | {product})
    for situation, remarks in _entries(SITUATIONS).items():
        grammar |= {remark: Meaning("fit", remark, frozenset({situation})) for remark in remarks}
    for kind, sentences in _entries(ANYWHERE).items():
        grammar |= {sentence: Meaning(kind, sentence, frozenset()) for sentence in sentences}
    return grammar


def _true_sentences() -> dict[tuple[str, str], list[str]]:
    index: dict[tuple[str, str], list[str]] = {}
    for sentence, meaning in GRAMMAR.items():
        for item in sorted(meaning.subjects) or [""]:
            index.setdefault((meaning.kind, item), []).append(sentence)
    return index


PRODUCTS = list(dict.fromkeys(product for product, *_ in _facts()))
SITUATION_NAMES = list(_entries(SITUATIONS))
GRAMMAR = _grammar()
TRUE = _true_sentences()
"""(kind, product or situation) -> its true sentences; (kind, "") -> sentences about any product."""
