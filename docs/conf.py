"""How the site is built: ``python -m sphinx -W --keep-going docs site``, with `.[docs]` installed.

The API pages show the signatures and docstrings of the package that is installed.
"""

import re
from inspect import signature

import fastsoftmax
from fastsoftmax import steps

project = "fastsoftmax"
release = version = fastsoftmax.__version__
author = copyright = "the fastsoftmax developers"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc"]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates"]
nitpicky = True
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
autodoc_typehints = "none"  # the docstrings say more
autosummary_generate = True
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

html_theme = "furo"
html_title = f"fastsoftmax {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False

PUBLIC = dict.fromkeys(fastsoftmax.__all__, "fastsoftmax") | dict.fromkeys(
    steps.__all__, "fastsoftmax.steps"
)
PUBLIC["TopK"] = "fastsoftmax"  # the step is written `steps.TopK` where it could be mistaken


def link_names(app, what, name, object_, options, lines):
    """Make of a name between single backticks a link if it is public, else code.

    A parameter is none, even if a function has its name.
    """
    try:
        own = set(signature(object_).parameters)
    except (TypeError, ValueError):
        own = set()
    in_steps = name.startswith("fastsoftmax.steps")

    def link(found):
        text = found[1]
        last = text.removeprefix("fastsoftmax.").removeprefix("steps.")
        if last in own or last not in PUBLIC:
            return f"``{text}``"
        step = text != last or in_steps
        module = "fastsoftmax.steps" if step and last in steps.__all__ else PUBLIC[last]
        return f":py:obj:`{text} <{module}.{last}>`"

    session = False
    for i, line in enumerate(lines):
        session = line.lstrip().startswith(">>>") or (session and bool(line.strip()))
        if not session:
            lines[i] = re.sub(r"(?<![`:\w])`([^`]+)`(?![`_])", link, line)


def setup(app):
    # After numpydoc (priority 500), which makes the headings.
    app.connect("autodoc-process-docstring", link_names, priority=600)
