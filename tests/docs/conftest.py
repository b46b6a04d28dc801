import pytest

GENERATED = ('bad_input.md', 'config_compat.md')


@pytest.fixture(scope='session')
def pages(repo):
    """Text by path of every page that is written by hand: the README, the site and the lab notes."""
    paths = [repo / 'README.md', *sorted((repo / 'docs').rglob('*.md')),
             *sorted((repo / 'benchmarks/notes').glob('*.md'))]
    return {path: path.read_text(encoding='utf-8') for path in paths if path.name not in GENERATED}
