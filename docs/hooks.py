"""Sphinx roles of the docstrings, as Markdown code on the API page."""
import re

# :class:`~.layout.StepFiles` shows StepFiles; :func:`merge_labels` shows merge_labels.
_ROLE = re.compile(r':\w+:<code>(?:~[\w.]*?(\w+)|([\w.]+))</code>')


def on_page_content(html: str, **kwargs) -> str:
    return _ROLE.sub(lambda match: f'<code>{match[1] or match[2].lstrip(".")}</code>', html)
