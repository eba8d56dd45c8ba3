"""From what people say about texts to a better language model.

    python train.py                                      the whole loop on the embedded example, in under three minutes
    python train.py --help                               the menu of components and settings
    python train.py stage=reward feedback_source=jsonl feedback_source.jsonl.path=pairs.jsonl
    python train.py -m advantage=gae,rloo seed=1,2       a sweep

What happens: the registered components become options (rlhf_lightning/registry.py), Hydra composes conf/config.yaml with the overrides,
the result is checked before any model loads, and the chosen stage (rlhf_lightning/stage/) runs from top to bottom.
"""

from rlhf_lightning.cli.program import program

if __name__ == "__main__":
    program()
