"""Decision: which variables of the pusher's shell reach what a push runs."""

from __future__ import annotations

from collections.abc import Mapping

# git's own would lead every git command of CI into the bare repository and its quarantine; the others belong to the
# pusher's make, shell or Python.
_PREFIXES = ("GIT_",)
_NAMES = frozenset(
    {
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONSTARTUP",
        "VIRTUAL_ENV",
        "VENV",
        "FLIGHTDECK_ENVIRONMENT",
        "FLIGHTDECK_LABELS",
        "FLIGHTDECK_COMMIT",
        "MAKEFLAGS",
        "MFLAGS",
        "MAKELEVEL",
        "MAKEFILES",
        "CDPATH",
        "BASH_ENV",
        "ENV",
        "OLDPWD",
    }
)


def clean(found: Mapping[str, str], **more: str) -> dict[str, str]:
    """Without git's, make's and Python's variables, with `more`; output comes line by line."""
    kept = {name: value for name, value in found.items() if not name.startswith(_PREFIXES) and name not in _NAMES}
    return {**kept, "PYTHONUNBUFFERED": "1", **more}
