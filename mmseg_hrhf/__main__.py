"""Runs the tools of an installed package: ``python -m mmseg_hrhf TOOL ...``."""
from __future__ import annotations

import runpy
import sys

from .utils.environment import installed_folder


def main() -> None:
    folder = installed_folder('tools')
    tools = sorted(path.stem for path in folder.glob('[!_]*.py'))
    if len(sys.argv) < 2 or sys.argv[1] not in tools:
        known = '\n'.join(f'  {tool}' for tool in tools)
        text = f'usage: python -m mmseg_hrhf TOOL ...\n\nTOOL is one of\n{known}\n\nRun TOOL --help for its options.'
        if len(sys.argv) < 2 or sys.argv[1] in ('-h', '--help'):
            print(text)
            return
        sys.exit(f'There is no tool {sys.argv[1]!r}.\n{text}')
    script = folder / f'{sys.argv[1]}.py'
    sys.argv[:2] = [str(script)]
    runpy.run_path(str(script), run_name='__main__')


if __name__ == '__main__':
    main()
