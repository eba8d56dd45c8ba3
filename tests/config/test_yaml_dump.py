"""The faster YAML is OmegaConf's, character for character."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from rlhf_lightning.config.yaml_dump import to_yaml

TEXTS = (
    st.text()
    | st.text("ab 1.:#-'\"\n\t", max_size=200)
    | st.sampled_from(["null", "on", "1e3", "${seed}", "...", "---", "~", "0x1f", "x " * 90])
)
KEYS = TEXTS.filter(bool)
VALUES = st.recursive(
    TEXTS | st.integers() | st.floats() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, VALUES, max_size=4))
@settings(max_examples=40, deadline=None)
def test_it_writes_what_omegaconf_writes(content):
    assert to_yaml(content) == OmegaConf.to_yaml(OmegaConf.create(content, flags={"allow_objects": True}))
