"""The YAML of conf/ as the menu reads it."""

from __future__ import annotations

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from rlhf_lightning import registry
from rlhf_lightning.config.presets import CONF, default_options, list_presets

registry.load_components()


def test_the_default_options_are_those_that_hydra_composes():
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config")
    for group, about in registry.GROUPS.items():
        node = config.get(group) or {}
        found = list(node) if about.many else [registry.component_of(node).name] if node else []
        assert default_options()[group] == found


def test_presets_are_the_files_of_conf():
    presets = list_presets()
    assert {(group, option) for group, options in presets.items() for option in options} == {
        (file.parent.name, file.stem) for file in CONF.glob("*/*.yaml")
    }
    assert {"devices", "precision"} <= set(presets["trainer"]["cpu"])
