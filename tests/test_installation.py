"""Where the distribution was installed from: requirements and hints that name it.

`tests/packaging/extra.py` installs what they name, in a fresh environment without an index.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from optimove_conditional_execution.installation import install_hint, requirement

NAME = "optimove-conditional-execution"


def installed_from(direct_url: object, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process find a distribution of ours with that record."""
    info = folder / "optimove_conditional_execution-9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 9\n")
    if direct_url is not None:
        (info / "direct_url.json").write_text(direct_url if isinstance(direct_url, str) else json.dumps(direct_url))
    monkeypatch.syspath_prepend(folder)


def test_a_wheel_is_named_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (wheel := tmp_path / "the wheels" / "sdk.whl").parent.mkdir()
    wheel.touch()
    installed_from({"url": wheel.as_uri(), "archive_info": {}}, tmp_path, monkeypatch)
    assert requirement() == f"{NAME} @ {wheel.as_uri()}"
    assert install_hint("cli") == f"pip install '{NAME}[cli] @ {wheel.as_uri()}'"
    wheel.unlink()
    assert requirement("cli") == f"{NAME}[cli]", "it is not there any more"


def test_a_repository_is_named_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record: dict[str, Any] = {"url": "https://git.example.com/sdk", "vcs_info": {"vcs": "git", "commit_id": "abc1"}}
    installed_from(record, tmp_path, monkeypatch)
    assert requirement("redis") == f"{NAME}[redis] @ git+https://git.example.com/sdk@abc1"


@pytest.mark.parametrize("record", [None, "{", {}])
def test_from_an_index_it_is_the_name(record: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed_from(record, tmp_path, monkeypatch)
    assert requirement("cli") == f"{NAME}[cli]"
    assert install_hint("cli") == f"pip install '{NAME}[cli]', with --find-links FOLDER if its wheel is on no index"
