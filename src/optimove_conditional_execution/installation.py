"""How to install this distribution again: requirements and hints that find it where it was installed from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

DISTRIBUTION: Final = "optimove-conditional-execution"


def requirement(extra: str = "") -> str:
    """Return the requirement of this distribution, with the file, folder or repository that it was installed from.

    Without one, as after an installation from an index, it is the name alone.
    Source: PEP 610, which has installers record the URL that they were given.

    Args:
        extra: One of its extras.
    """
    # These take longer to import than most of the SDK, and few programs need them.
    import importlib.metadata
    from urllib.request import url2pathname

    name = f"{DISTRIBUTION}[{extra}]" if extra else DISTRIBUTION
    try:
        record = json.loads(importlib.metadata.distribution(DISTRIBUTION).read_text("direct_url.json") or "{}")
    except (importlib.metadata.PackageNotFoundError, OSError, ValueError):
        return name
    url = str(record.get("url", ""))
    parts = urlsplit(url)
    if not url or (parts.scheme == "file" and not Path(url2pathname(parts.path)).exists()):
        return name
    repository = record.get("vcs_info")
    return f"{name} @ {repository['vcs']}+{url}@{repository['commit_id']}" if repository else f"{name} @ {url}"


def install_hint(extra: str) -> str:
    """Return the command that installs this distribution with an extra.

    Args:
        extra: One of its extras.
    """
    import shlex

    wanted = requirement(extra)
    hint = f"pip install {shlex.quote(wanted)}"
    return hint if "@" in wanted else f"{hint}, with --find-links FOLDER if its wheel is on no index"
