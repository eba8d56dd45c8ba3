"""The sentences of task=reviews: what is true of each product, and the ways to say it.

FACTS and FRAMES together produce every sentence of that world, so that reading a review is looking its sentences up in GRAMMAR.
"""

from __future__ import annotations

from dataclasses import dataclass

# What is true: aspects | evidence | drawbacks of all the products of a category, and each product's own.
FACTS = """
kitchen: steel thick/shiny, switch soft/simple, cleaning easy/quick | serves four people; is ready fast | cord short, base slippery
  a kettle: spout neat | boils a litre of water
  a toaster: slot wide | browns both sides alike
  a blender: jug strong | crushes ice
  a coffee machine: filter fine | makes a rich coffee
  a rice cooker: pot deep | keeps the rice warm
garden: metal strong/rustproof, pole long/sturdy, grip firm/soft | saves my back; survives the winter | hook small, paint thin
  a rake: head broad | gathers wet leaves
  a shovel: blade curved | moves a heap of snow
  a hoe: tip narrow | takes out every weed
  an axe: edge sharp | splits dry logs
  a broom: brush dense | cleans the whole yard
electronics: screen bright/sharp, menu simple/clear, charger quick/small | lasts two days; starts at once | case slippery, sound low
  a phone: signal steady | rings in every room
  a laptop: keyboard quiet | runs three films on a charge
  a camera: lens fast | takes photos at night
  a tablet: pen exact | shows maps without a network
  a smart watch: band light | counts my steps
furniture: wood smooth/solid, frame firm/straight, assembly quick/easy | carries a big man; never wobbles | foot rough, edge hard
  a chair: seat wide | rolls without a sound
  a desk: drawer deep | holds two screens
  a bookshelf: board thick | holds two hundred books
  a sofa: cushion soft | seats three people
  a bed: mattress firm | lets me sleep all night
clothing: fabric soft/thick, stitching neat/strong, colour deep/warm | keeps me warm; washes well | label scratchy, cut tight
  a jacket: collar high | blocks the wind
  a scarf: pattern pretty | goes twice around my neck
  a hat: brim wide | shades my whole face
  a raincoat: hood snug | keeps me dry in a storm
  a sweater: knit dense | keeps its shape
toys: design clever/pretty, paint safe/bright, box neat/strong | keeps the kids busy; survives a fall | guide short, plastic thin
  a puzzle: picture clear | has a thousand pieces
  a kite: tail long | flies in a light wind
  a doll: dress cute | closes her eyes in bed
  a toy train: track smooth | pulls eight wagons
  a robot: voice funny | walks around the table
bags: zip smooth/strong, strap wide/soft, pocket deep/handy | stays dry in the rain; fits under a seat | lining thin, buckle stiff
  a backpack: back padded | holds three large books
  a suitcase: wheel quiet | holds clothes for a week
  a handbag: leather fine | goes with every dress
  a sports bag: mesh airy | keeps shoes and towels apart
  a school bag: lid bright | takes all the homework
music: tone warm/full, finish shiny/smooth, touch light/even | sounds good in a hall; carries far | stand weak, cover thin
  a guitar: neck slim | stays in tune for days
  a flute: key light | reaches the highest notes
  a drum: skin tight | takes hard hits all night
  a violin: bow straight | sings above the band
  a piano: pedal soft | fills the house with sound
"""

# Each situation of the prompt, and the remarks that fit it and no other.
SITUATIONS = """
for a student: It costs very little. | The price is low. | It suits a small budget. | It was half the usual price.
as a gift: It came in a pretty box. | My friend loved it at once. | It was a great surprise. | It came with a nice card.
for a family: Our children love it too. | All of us share it. | Even the kids can use it. | My wife and son use it too.
for a small flat: It takes little space. | It fits in a corner. | It needs no extra room. | It goes behind the door.
for every day: It shows no wear at all. | It has survived a hard year. | It still looks new. | I use it each morning.
bought online: It came the next day. | It looks like the photos. | The parcel was well packed. | Sending it took two days.
from a local shop: The staff was friendly. | They let me try it first. | The owner gave good advice. | The shop is easy to reach.
bought used: The seller was honest. | It works like a new one. | I saw only one scratch. | The last owner took good care.
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
    shared = ("", "", "")
    for line in FACTS.strip().splitlines():
        name, _, facts = line.partition(": ")
        if not line.startswith(" "):
            aspects, evidence, drawbacks = facts.split(" | ")
            shared = (aspects, evidence, drawbacks)
            continue
        product, (own_aspect, own_evidence) = name.strip(), facts.split(" | ")
        found += [(product, kind, "", (product.partition(" ")[2],)) for kind in ("opener", "recommendation")]
        for noun, qualities in (aspect.split(" ") for aspect in f"{own_aspect}, {shared[0]}".split(", ")):
            found += [(product, "aspect", noun, (noun, quality)) for quality in qualities.split("/")]
        found += [(product, "evidence", deed, (deed,)) for deed in f"{own_evidence}; {shared[1]}".split("; ")]
        found += [(product, "drawback", flaw, tuple(flaw.split(" "))) for flaw in shared[2].split(", ")]
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
