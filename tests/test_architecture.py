import ast

# scenario -> datasets -> losses -> methods and inversion -> replay -> step config -> evaluation -> runner: a module
# imports only what stands before it, or beside it in its own package.
ORDER = [
    'version',
    'files',
    'rank_failure',
    'import_noise',
    'user_error',
    'work_dir_lock',
    'options',
    'plain_types',
    'randomness',
    'visualization',
    'scenario',
    'image_list',
    'checkpoint',
    'step_files',
    'datasets',
    'first_step',
    'backbones',
    'losses',
    'methods',
    'inversion',
    'replay',
    'training',
    'step_result',
    'unsupported',
    'input_size',
    'head_classes',
    'step_schedule',
    'step_train_data',
    'step_evaluation',
    'config_text',
    'step_config',
    'config_check',
    'plain_step',
    'evaluation',
    'distributed',
    'installed_files',
    'config_file',
    'testing',
    'run_identity',
    'environment',
    'rehearsal',
    'run_plan',
    'dry_run',
    'incremental_runner',
    'comparison',
    'figures',
    'report',
    'preparation',
    '__main__',
]


def test_modules_import_in_one_direction(repo):
    package = repo / 'mmseg_hrhf'
    places = set()
    for path in sorted(package.rglob('*.py')):
        parts = path.relative_to(package).with_suffix('').parts
        if parts == ('__init__', ):
            continue
        places.add(parts[0])
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            base = parts[:len(parts) - node.level]
            target = (*base, *(node.module or '').split('.'))[0] or node.names[0].name
            assert ORDER.index(target) <= ORDER.index(parts[0]), f'{path} imports {target}, which comes after it'
    assert places == set(ORDER)
