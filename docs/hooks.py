"""What makes the site work without a network: Mermaid is served with the pages that have a diagram."""

from __future__ import annotations

import re
from importlib.resources import files as files_of
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

MERMAID: Final = "assets/mermaid.js"
DIAGRAM: Final = '<pre class="mermaid">'
BUNDLE: Final = re.compile(r'<script src="[^"]*assets/javascripts/bundle[^"]*"></script>')


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add Mermaid's script, which mermaidx brings as it is published; the theme would load it from a CDN."""
    script = files_of("mermaidx") / "assets" / "mermaid.js"
    files.append(File.generated(config, MERMAID, content=script.read_bytes()))
    return files


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Load Mermaid before the theme's own script, which takes one that is there; megabytes, so only where it is used."""
    if DIAGRAM not in output:
        return output
    tag = f'<script src="{get_relative_url(MERMAID, page.url)}"></script>'
    written, found = BUNDLE.subn(lambda bundle: tag + bundle[0], output)
    if found != 1:
        raise PluginError("The theme's script was not found once: Mermaid has no place. Look at docs/hooks.py.")
    return written
