"""What the site needs beside its pages: files that they link to, and Mermaid, so that it works without a network."""

from __future__ import annotations

import posixpath
import re
from importlib.resources import files as files_of
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

MERMAID: Final = "assets/mermaid.js"
DIAGRAM: Final = '<pre class="mermaid">'
BUNDLE: Final = re.compile(r'<script src="[^"]*assets/javascripts/bundle[^"]*"></script>')
LOADED: Final = re.compile(r"""<(?:script|img|iframe)\b[^>]*\bsrc="https?:|<link\b[^>]*rel="stylesheet"[^>]*https?:""")
SOURCE: Final = re.compile(r"\]\((?:\.\./)+((?:examples|tests)/[\w/]+\.(?:py|yaml))\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the source files that pages link to, and Mermaid's script, which the theme would load from elsewhere."""
    script = files_of("mermaidx") / "assets" / "mermaid.js"
    files.append(File.generated(config, MERMAID, content=script.read_bytes()))
    texts = [page.content_string for page in files.documentation_pages()]
    for path in sorted({path for text in texts for path in SOURCE.findall(text)}):
        files.append(File.generated(config, f"source/{path}", abs_src_path=str(Path(config.docs_dir).parent / path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Point links to source files at the site's copies; where a page is read on a code host they fit as they stand."""
    folder = posixpath.dirname(page.file.src_uri) or "."
    return SOURCE.sub(lambda link: f"]({posixpath.relpath(f'source/{link[1]}', folder)})", markdown)


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Load Mermaid, where it is used, before the theme's own script, which takes one that is there."""
    if LOADED.search(output):
        raise PluginError(f"{page.file.src_uri} would load something from the network.")
    if DIAGRAM not in output:
        return output
    tag = f'<script src="{get_relative_url(MERMAID, page.url)}"></script>'
    written, found = BUNDLE.subn(lambda bundle: tag + bundle[0], output)
    if found != 1:
        raise PluginError("The theme's script was not found once: Mermaid has no place. Look at docs/hooks.py.")
    return written
