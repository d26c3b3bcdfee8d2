"""What mkdocs lacks: pages that are kept outside of docs/, links to them, and the manual's pages.

Rules: every text has one place, from which the site takes it. Links are written for a reader of the
repository, relative to the file that they are in, and turned into the site's here.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
MANUAL = {"man/ifdefault.8": "reference/ifdefault.8.md"}
MANUAL["man/ifdefault.toml.5"] = "reference/ifdefault.toml.5.md"
PAGES = {  # the repository's files, and their places on the site
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "packaging/README.md": "packaging.md",
}
FILES = {"LICENSE": "LICENSE.txt", "packaging/balance.conf": "packaging/balance.conf.txt"}
FOLDERS = {  # those whose pages are listed: title, and what they are
    "howto": (
        "How-to guides",
        "What to write for a host like yours, and how to see that it works.",
    ),
    "decisions": ("Decisions", "Why it is built as it is: a short record for each choice."),
}
CONTENTS = {f"docs/{folder}": f"{folder}/index.md" for folder in FOLDERS}
PLACES = PAGES | MANUAL | FILES | CONTENTS
SOURCES = {place: source for source, place in PLACES.items()}

LINK = re.compile(r"(?<=\]\()([^)#:\s]+)")
SECTION = re.compile(r'<h([12]) class="S[hs]" id="([^"]+)"><a [^>]*>(.*?)</a></h\1>', re.DOTALL)


def on_config(config: MkDocsConfig) -> None:
    """Put the pages of a folder in the place of `FOLDER/*`."""
    for section in _sections(config.nav):
        for name, folder in list(section.items()):
            if isinstance(folder, str) and folder.endswith("/*"):
                section[name] = _pages(Path(config.docs_dir), folder.removesuffix("/*"))


def _sections(nav: list[dict[str, object]]) -> list[dict[str, object]]:
    inner = [found for each in nav for found in each.values() if isinstance(found, list)]
    return [*nav, *(section for each in inner for section in _sections(each))]


def _pages(docs: Path, folder: str) -> list[str]:
    pages = sorted(path.name for path in (docs / folder).glob("*.md"))
    return [f"{folder}/{name}" for name in ("index.md", *pages)]


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add what is kept elsewhere, and what is made from it."""
    made = {place: (ROOT / source).read_text("utf-8") for source, place in (PAGES | FILES).items()}
    made |= {place: manual(ROOT / source) for source, place in MANUAL.items()}
    made |= {place: contents(ROOT / source) for source, place in CONTENTS.items()}
    for place, text in made.items():
        files.append(File.generated(config, place, content=text))


def contents(folder: Path) -> str:
    """A list of a folder's pages."""
    title, what = FOLDERS[folder.name]
    lines = [f"# {title}", "", what, ""]
    for path in sorted(folder.glob("*.md")):
        heading = re.search("^# (.+)", path.read_text("utf-8"), re.MULTILINE)
        lines.append(f"- [{heading[1] if heading else path.stem}]({path.name})")
    return "\n".join(lines)


def manual(path: Path) -> str:
    """A page of the manual: HTML by mandoc, with headings that mkdocs knows as such."""
    command = ["mandoc", "-T", "html", "-O", "fragment", "-W", "warning", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PluginError(f"{path}: {done.stderr or done.stdout}")
    body = re.sub(r"<table class=\"(?:head|foot)\">.*?</table>", "", done.stdout, flags=re.DOTALL)
    body = body.replace('<div class="manual-text">', "").rstrip().removesuffix("</div>")
    body = re.sub(r"</?section\b[^>]*>|^<br/>$", "", body, flags=re.MULTILINE)
    body = SECTION.sub(_heading, body)
    return f"# {path.stem}({path.suffix[1:]})\n\n{body}"


def _heading(found: re.Match[str]) -> str:
    level, anchor, title = found.groups()
    text = re.sub(r"<[^>]+>|\s+", " ", title).strip()
    return f"\n\n{'#' * (int(level) + 1)} {text} {{ #{anchor} }}\n\n"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between the repository's files into links between the site's, and the like."""
    here = page.file.src_uri
    if here in CONTENTS.values():
        return markdown
    source = SOURCES.get(here, join("docs", here))

    def turn(found: re.Match[str]) -> str:
        target = normpath(join(dirname(source), found[1]))
        place = PLACES.get(target, target.removeprefix("docs/"))
        return relpath(place, dirname(here) or ".")

    markdown = markdown.replace("<details>", '<details markdown="1">')  # what is in it, too
    return LINK.sub(turn, markdown)
