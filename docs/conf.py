"""Sphinx: the pages are Markdown that GitHub shows too; API pages come from the docstrings of the installed package.

Sphinx rather than MkDocs, whose theme Material and its plugins are no longer maintained from 2027 on.
"""

import mdgnn

project = "mdgnn"
copyright = "the authors of mdgnn, MIT licence"
release = mdgnn.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "mdgnn"
myst_heading_anchors = 3
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_class_signature = "mixed"
napoleon_google_docstring = False
napoleon_use_ivar = True
suppress_warnings = ["ref.python"]  # types in docstrings are prose
maximum_signature_line_length = 100
