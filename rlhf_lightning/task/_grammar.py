"""The sentences of task=reviews: what is true of each product, and the ways to say it.

FACTS and FRAMES together produce every sentence of that world, so that reading a review is looking its sentences up in GRAMMAR.
"""

from __future__ import annotations

from dataclasses import dataclass

# What is true of all the products of a category: products: aspects | evidence | drawbacks.
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

# Each situation of the prompt, and the remarks that fit it and no other.
SITUATIONS = """
for a student: It costs very little. | It suits a small budget. | It was half the usual price.
as a gift: My friend loved it at once. | It was a great surprise. | It came with a nice card.
for a family: Our children love it too. | All of us share it. | Even the kids can use it.
bought used: The seller was honest. | It works like a new one. | The last owner took good care.
"""

# How facts are said.
FRAMES = """
opener: I bought this {} last month. | This {} replaced my old one. | I have had this {} for a year. | My {} came on Monday.
aspect: The {0} is very {1}. | I like the {1} {0}. | I love how {1} the {0} is.
evidence: It {}. | Mine {}. | I found that it {}.
drawback: The {0} is a little {1}. | Sadly the {0} is rather {1}. | Still, the {0} is a bit {1}.
recommendation: I recommend this {}. | You should try this {}. | I would get this {} again.
"""

# What can be said of anything.
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
    """What a sentence says: its kind, the fact (equal for two wordings of it), and the products or situations it is true of."""

    kind: str
    fact: str
    about: frozenset[str]


def _entries(text: str) -> dict[str, list[str]]:
    """`name: a | b` lines as lists by name; an indented line goes on with the one above."""
    lines = text.strip().replace("\n  ", " ").splitlines()
    return {name: sentences.split(" | ") for name, _, sentences in (line.partition(": ") for line in lines)}


def _facts() -> list[tuple[str, str, str, tuple[str, ...]]]:
    """All that is true: (product, kind, fact, words for the frames of that kind)."""
    found: list[tuple[str, str, str, tuple[str, ...]]] = []
    for line in FACTS.strip().replace("\n  ", " ").splitlines():
        products, _, facts = line.partition(": ")
        aspects, evidence, drawbacks = facts.split(" | ")
        for product in products.split(", "):
            found += [(product, kind, "", (product.partition(" ")[2],)) for kind in ("opener", "recommendation")]
            for noun, qualities in (aspect.split(" ") for aspect in aspects.split(", ")):
                found += [(product, "aspect", noun, (noun, quality)) for quality in qualities.split("/")]
            found += [(product, "evidence", deed, (deed,)) for deed in evidence.split("; ")]
            found += [(product, "drawback", flaw, tuple(flaw.split(" "))) for flaw in drawbacks.split(", ")]
    return found


def _grammar() -> dict[str, Meaning]:
    """Every sentence of the world and its meaning. A sentence that several products allow is about all of them."""
    said: dict[str, Meaning] = {}
    frames = _entries(FRAMES)
    for product, kind, fact, words in _facts():
        for sentence in (frame.format(*words) for frame in frames[kind]):
            others = said[sentence].about if sentence in said else frozenset()
            said[sentence] = Meaning(kind, fact or sentence, others | {product})
    for situation, remarks in _entries(SITUATIONS).items():
        said |= {remark: Meaning("fit", remark, frozenset({situation})) for remark in remarks}
    for kind, sentences in _entries(ANYWHERE).items():
        said |= {sentence: Meaning(kind, sentence, frozenset()) for sentence in sentences}
    return said


def _true_sentences() -> dict[tuple[str, str], list[str]]:
    index: dict[tuple[str, str], list[str]] = {}
    for sentence, meaning in GRAMMAR.items():
        for item in sorted(meaning.about) or [""]:
            index.setdefault((meaning.kind, item), []).append(sentence)
    return index


PRODUCTS = list(dict.fromkeys(product for product, *_ in _facts()))
SITUATION_NAMES = list(_entries(SITUATIONS))
GRAMMAR = _grammar()
TRUE = _true_sentences()
"""(kind, product or situation) -> the sentences that are true there; (kind, "") -> those that can be said of anything."""
