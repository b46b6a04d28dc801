"""A config's text, laid out once."""
from __future__ import annotations

from mmengine.config import Config

# Content and text of the config that was laid out last.
_last: tuple[str, str] = ('', '')


class TextOnceConfig(Config):
    """A config that remembers its text until its content changes.

    As a training starts, mmengine asks for the text four times (log, file, visualizer, records), and lays it out anew
    each time, which takes as long as several iterations.
    """

    @property
    def pretty_text(self) -> str:
        global _last
        content = repr(self._cfg_dict)
        if _last[0] != content:
            _last = content, super().pretty_text
        return _last[1]
