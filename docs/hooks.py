"""What MkDocs does not know by itself: the guides' order, and the notebooks as pages.

A guide is a Markdown file in docs/guides; it appears under its own title. A notebook becomes a page
of its cells and stored outputs. Nothing is executed here.
"""

import base64
import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"

# The order in which one would read them; what is not named here comes after.
GUIDES = ["casting", "rounding", "blocks", "arithmetic", "accumulation", "measuring", "training"]
GUIDES += ["keras", "networks"]
GUIDES += ["recorder", "torch", "jax", "files", "clusters", "benchmarks", "verification"]
GUIDES += ["published"]


def on_config(config):
    """Fill the two empty sections of the navigation, and watch the notebooks."""
    found = {
        path.stem: f"guides/{path.name}" for path in Path(config.docs_dir, "guides").glob("*.md")
    }
    order = [name for name in GUIDES if name in found]
    order += sorted(set(found) - set(order))
    for section in config.nav:
        if "Guides" in section:
            section["Guides"] = [found[name] for name in order]
        if "Notebooks" in section:
            section["Notebooks"] = [f"notebooks/{path.stem}.md" for path in _notebooks()]
    config.watch.append(str(NOTEBOOKS))
    return config


def on_files(files, config):
    """Add a page for every notebook, and a file for every picture in it."""
    for path in _notebooks():
        text, pictures = page_of(json.loads(path.read_text(encoding="utf-8")), path.stem)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
        for name, png in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=png))
    return files


def on_page_markdown(markdown, page, **_):
    """Lead links to notebooks to their pages, and put each command's help where it is asked for.

    The word that stands for an empty line in examples that are run becomes one.
    """
    here = "../" * page.file.src_uri.count("/")
    linked = re.sub(
        r"\]\((?:\.\./)+notebooks/(\w+)\.ipynb\)", rf"]({here}notebooks/\1.md)", markdown
    )
    return re.sub(r"<!-- help: (\w*) -->", lambda found: _help(found[1]), linked).replace(
        "\n<BLANKLINE>\n", "\n\n"
    )


def page_of(notebook, stem):
    """Return a notebook as Markdown, and its pictures as PNG by file name."""
    parts, pictures = [], {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(re.sub(r"\.ipynb\)", ".md)", source))
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            name = f"{stem}-{len(pictures)}.png"
            shown, png = _output(output, name, cell["metadata"].get("alt", ""))
            parts.append(shown)
            pictures |= {name: png} if png else {}
    return "\n\n".join(parts) + "\n", pictures


def _output(output, name, alternative):
    """Return the richest form of an output as Markdown, and the picture if it is one."""
    if output["output_type"] == "stream":
        return f"```text\n{''.join(output['text']).rstrip()}\n```", None
    data = output["data"]
    if "image/png" in data:
        picture = base64.b64decode(data["image/png"])
        return f"![{html.escape(alternative, quote=True)}]({name})", picture
    if "text/html" in data:
        whole = re.sub(r"\n\s*", "\n", "".join(data["text/html"]))  # a blank line would end it
        return f'<div class="output">{whole}</div>', None
    return f"```text\n{''.join(data['text/plain'])}\n```", None


def _help(command):
    """Return what ``lowprec COMMAND --help`` prints."""
    words = [sys.executable, "-m", "lowprec", *command.split(), "--help"]
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1"}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    return f"```text\n{done.stdout.strip()}\n```"


def _notebooks():
    return sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
