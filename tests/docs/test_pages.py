import re

# A path of the repository in backticks, perhaps with arguments after it.
PATH = re.compile(r'`((?:mmseg_hrhf|configs|tools|tests|benchmarks|docs)/[^\s`*<>{}]*)')
LINK = re.compile(r'\]\((?!https?:|#|mailto:)([^)#\s]+)')


def pages(repo):
    return [repo / 'README.md', *sorted((repo / 'docs').rglob('*.md'))]


def test_paths_named_in_the_docs_exist(repo):
    missing = {(page.name, path) for page in pages(repo) for path in PATH.findall(page.read_text())
               if not (repo / path.rstrip('.,;:')).exists()}
    assert missing == set()


def test_links_between_pages_lead_somewhere(repo):
    missing = {(page.name, link) for page in pages(repo) for link in LINK.findall(page.read_text())
               if not (page.parent / link).exists()}
    assert missing == set()



def test_every_page_is_in_the_navigation(repo):
    navigation = (repo / 'mkdocs.yml').read_text()
    pages = [path.name for path in (repo / 'docs').iterdir() if path.suffix in ('.md', '.ipynb')]
    assert [name for name in pages if f': {name}\n' not in navigation] == []
