import ast
import importlib
import json
import re
from pathlib import Path

import pytest

# A path of the repository in backticks or in a command, perhaps with arguments after it.
PATH = re.compile(r'(?:`|^| )((?:mmseg_hrhf|configs|tools|tests|benchmarks|docs)/[^\s`*<>{}]*)', re.MULTILINE)
LINK = re.compile(r'\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)')
BLOCK = re.compile(r'^```(\w*)\n(.*?)^```', re.DOTALL | re.MULTILINE)
TOOL = re.compile(r'((?:tools|benchmarks)/[\w/]+\.(?:py|sh))')
FLAG = re.compile(r'(?<![\w-])(--[a-z][a-z-]+)')
# Made by a command of the pages.
MADE = {'docs/tables/gpu_check.json'}


def anchors(text):
    """Anchors of a page as mkdocs and GitHub make them of its headings, and of what mkdocstrings documents."""
    headings = re.findall(r'^#+ (.*)$', BLOCK.sub('', text), re.MULTILINE)
    plain = {re.sub(r'[-\s]+', '-', re.sub(r'[^\w\s-]', '', heading).strip().lower()) for heading in headings}
    return plain | set(re.findall(r'^::: (\S+)$', text, re.MULTILINE))


def commands(text):
    """Commands of a page with their continuation lines."""
    shell = '\n'.join(code for language, code in BLOCK.findall(text) if language == 'bash')
    inline = re.findall(r'`([^`\n]*(?:\n[^`\n]+)?)`', BLOCK.sub('', text))
    return [command.replace('\n', ' ') for command in [*shell.replace('\\\n', ' ').splitlines(), *inline]]


def test_paths_named_in_the_docs_exist(repo, pages):
    named = {(page.name, path.rstrip('.,;:')) for page, text in pages.items() for path in PATH.findall(text)}
    assert len(named) > 100
    assert {(page, path) for page, path in named if path not in MADE and not (repo / path).exists()} == set()


def test_links_between_pages_lead_somewhere(pages):
    broken = set()
    for page, text in pages.items():
        for link, anchor in LINK.findall(BLOCK.sub('', text)):
            target = page.parent / link if link else page
            if not target.exists() or (anchor and anchor not in anchors(pages[target.resolve()])):
                broken.add((page.name, link, anchor))
    assert broken == set()


def test_every_page_is_in_the_navigation(repo):
    navigation = (repo / 'mkdocs.yml').read_text()
    names = [path.name for path in (repo / 'docs').iterdir() if path.suffix in ('.md', '.ipynb')]
    assert [name for name in names if f': {name}\n' not in navigation] == []


def test_commands_use_flags_that_exist(repo, pages):
    seen, unknown = 0, set()
    for page, text in pages.items():
        for command in commands(text):
            tool = TOOL.search(command)
            # What stands before the tool belongs to pip, python or torchrun.
            flags = FLAG.findall(command[tool.end():].split('#')[0]) if tool else ()
            name = tool[1] if tool else ''
            source = 'tools/train.py' if name in ('tools/dist_train.sh', 'tools/slurm_train.sh') else name
            for flag in flags:
                seen += 1
                if f"'{flag}'" not in (repo / source).read_text():
                    unknown.add((page.name, source, flag))
    assert seen > 50
    assert unknown == set()


def test_python_blocks_are_python(pages):
    blocks = [(page.name, code) for page, text in pages.items() for language, code in BLOCK.findall(text)
              if language == 'python']
    assert len(blocks) > 10
    for name, code in blocks:
        try:
            ast.parse(code)
        except SyntaxError as error:
            pytest.fail(f'{name}: {error}\n{code}')


def test_what_the_examples_import_exists(repo, pages):
    notebook = json.loads((repo / 'docs/tutorial.ipynb').read_text())
    blocks = [''.join(cell['source']) for cell in notebook['cells'] if cell['cell_type'] == 'code']
    blocks += [code for text in pages.values() for language, code in BLOCK.findall(text) if language == 'python']
    imported = [(node.module, alias.name) for code in blocks for node in ast.walk(ast.parse(code))
                if isinstance(node, ast.ImportFrom) and node.module.startswith('mmseg_hrhf') for alias in node.names]
    assert len(imported) > 10
    assert [(module, name) for module, name in imported if not hasattr(importlib.import_module(module), name)] == []


def test_the_files_of_each_equation_lead_to_it(repo):
    """From a published config every file names the next one, or a class in it; five files suffice."""
    rows = re.findall(r'^\| eq\. (\d),[^|]*\| (`[^|;]+)', (repo / 'docs/paper_map.md').read_text(), re.MULTILINE)
    assert [number for number, _ in rows] == ['1', '2', '3', '4', '5']
    for number, cell in rows:
        paths = ['configs/hrhf/voc_15-1.py', 'configs/_base_/methods/hrhf.py', *re.findall(r'`([^`]+)`', cell)]
        texts = [(repo / path).read_text() for path in paths]
        assert len(paths) <= 5 and f'eq. {number}' in texts[-1], (number, paths)
        for text, path, following in zip(texts, paths[1:], texts[1:]):
            names = [Path(path).stem, *re.findall(r'^class (\w+)', following, re.MULTILINE)]
            assert any(re.search(rf'\b{name}\b', text) for name in names), (number, path)
