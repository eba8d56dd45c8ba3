from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lightning.model.packed_attention import SHORTEST_SHARE, BucketLayout


@given(st.lists(st.integers(0, 30), max_size=12), st.integers(0, 5))
def test_a_layout_holds_every_token_once_with_its_own_text(lengths, filled):
    layout = BucketLayout.of(torch.tensor(lengths, dtype=torch.long), filled)
    count = sum(lengths)
    text = [t for t, n in enumerate(lengths) for _ in range(n)]
    scatter = layout.scatter.tolist()
    assert len(scatter) == count + filled
    assert len(set(scatter[:count])) == count
    assert layout.gather[layout.scatter[:count]].tolist() == list(range(count))
    rows, done = [], 0
    for bucket in layout.buckets:
        texts, longest = bucket.shape
        own = layout.gather[done : done + texts * longest].view(texts, longest)
        done += texts * longest
        mask = torch.ones(texts, longest, dtype=torch.bool) if bucket.mask is None else bucket.mask.view(texts, longest)
        assert bucket.mask is None or not mask.all()
        assert mask.sum(1).min() >= SHORTEST_SHARE * longest
        rows += [(row, kept) for row, kept in zip(own.tolist(), mask, strict=True)]
    assert done == len(layout.gather)
    assert all(len({text[place] for place in row}) == 1 for row, _ in rows)
    assert sorted(place for row, kept in rows for place in torch.tensor(row)[kept].tolist()) == list(range(count))
