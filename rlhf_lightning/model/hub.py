"""Upload of a model's folder to the Hugging Face Hub: private unless asked otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlhf_lightning.errors import ConfigError, UserError


def check_push(name: Any) -> None:
    """Check the setting `push` before anything is trained.

    Raises:
        ConfigError: not a name on the Hub, the Hub is switched off, or no token is stored.
    """
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(name)
    except (HFValidationError, TypeError) as cause:
        raise ConfigError(f"push={name}: give a name on the Hub, as in push=you/my-policy: {str(cause).splitlines()[0]}") from None
    if constants.HF_HUB_OFFLINE:
        raise ConfigError(f"push={name} needs the Hub, which HF_HUB_OFFLINE=1 switches off: unset it, or leave push out")
    if not get_token():
        raise ConfigError(f"push={name} needs a token that may write: run `hf auth login`, or set HF_TOKEN")


def push_folder(folder: Path, name: str, *, private: bool = True, **options: Any) -> str:
    """Create a repository on the Hub, unless it exists, and upload a folder; returns its address.

    Args:
        options: of huggingface_hub.HfApi.create_repo, such as `token`.

    Raises:
        UserError: the Hub can't be reached or refuses, or the repository exists and is public; the folder stays as it is.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=options.get("token"))
    try:
        name = api.create_repo(name, private=private, exist_ok=True, **options).repo_id
        if private and not api.repo_info(name).private:
            raise UserError(f"push={name}: a repository of this name exists and is public, and nothing was uploaded: choose another name")
        return str(api.upload_folder(repo_id=name, folder_path=folder))
    except UserError:
        raise
    except Exception as cause:  # of the Hub, the network or the disk, in many classes
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        raise UserError(
            f"push={name} failed: {reason}; the model is complete in {folder}: upload it by `hf upload {name} {folder} . --private`"
        ) from cause
