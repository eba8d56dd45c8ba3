"""Errors that a user can mend. The command line prints their message alone; anything else keeps its traceback."""


class UserError(Exception):
    """Something the user gave can't be used; the message names file, line or key, what was expected and how to fix it."""


class ConfigError(UserError):
    """A setting or a combination of settings that can't be run."""


class RegistryError(UserError):
    """A component that can't be registered."""


class DataError(UserError):
    """A file or record that can't be read."""


class OverlongPrompt(DataError):
    """A prompt that leaves no room for its response in the model's positions."""
