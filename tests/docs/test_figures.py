"""The figures on the pages are those of the files in docs/tables."""
import csv
import json
import re

import pytest


def rows_of(repo, name):
    """Mean and deviation by (method, column, group), background left out."""
    with open(repo / 'docs/tables' / name, newline='') as file:
        reader = csv.DictReader(file)
        method = reader.fieldnames[0]
        return {(row[method], row['column'], row['group']): row for row in reader
                if row['background'] == 'without background'}


def cell(row):
    mean = f'{float(row["mean"]):.1f}'
    return mean if int(row['seeds']) == 1 else f'{mean} ± {float(row["std"]):.1f}'


def cells(line):
    return [text.strip() for text in line.strip().strip('|').split('|')]


def test_results_are_those_of_the_csv_files(repo):
    page = (repo / 'docs/results.md').read_text()
    tables = re.findall(r'<!-- from tables/(\S+) -->\n((?:\|.*\n)+)', page)
    checked = 0
    for name, text in tables:
        held = rows_of(repo, name)
        header, _, *body = map(cells, text.splitlines())
        columns = [tuple(title.split(': ')) for title in header[1:]]
        for method, *values in body:
            for column, value in zip(columns, values):
                row = held.get((method, *column))
                assert value == ('-' if row is None else cell(row)), (name, method, column)
                checked += row is not None
    assert len(tables) == 8 and checked > 390


@pytest.mark.parametrize('label, name, column', [
    ('Shapes 3-1', 'shapes.csv', '3-1 overlapped'), ('Shapes 4-1', 'shapes.csv', '4-1 overlapped'),
    ('Shapes 2-3', 'shapes.csv', '2-3 overlapped'), ('six VOC classes', 'voc_animals.csv', 'overlapped')])
def test_results_of_the_readme(repo, label, name, column):
    lines = (repo / 'README.md').read_text().splitlines()
    methods = [method.replace('synthetic images', 'fakes') for method in cells(
        next(line for line in lines if line.startswith('| Data, task')))[1:]]
    values = cells(next(line for line in lines if line.startswith(f'| {label}')).replace('*', ''))[1:]
    held = rows_of(repo, name)
    assert values == [f'{float(held[method, column, "all"]["mean"]):.1f}' for method in methods]


def test_speeds_are_those_of_the_json_file(repo):
    parts = json.loads((repo / 'docs/tables/speed_zen3.json').read_text()).values()
    held = {tuple(f'{row[key]:.{digits}f}' for key in ('value', 'low', 'high'))
            for part in parts for row in part['rows'] for digits in (1, 2, 3)}
    page = (repo / 'docs/performance.md').read_text()
    shown = set(re.findall(r'(\d+\.\d+) \((\d+\.\d+) to (\d+\.\d+)\)', page.split('<!-- gpu: end -->')[1]))
    assert len(shown) > 30
    assert not shown - held
