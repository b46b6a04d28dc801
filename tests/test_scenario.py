"""Scenarios: which classes, images and labels a step has (docs/protocol.md, sections 1 to 3)."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmseg_hrhf.datasets.source import load_image_list
from mmseg_hrhf.scenario import SETTINGS, Scenario, class_counts

# Raw labels with a gap, so that a raw label cannot be mistaken for a class index.
LABELS = {'cat': 1, 'cow': 2, 'dog': 4, 'hen': 7}


def scenario(**kwargs):
    """Two base classes, then one, then one; ``cat`` comes last."""
    kwargs.setdefault('steps', [['cow', 'dog'], ['hen'], ['cat']])
    return Scenario.build(LABELS, **kwargs)


def presence(*images):
    """(N, 256) bool from the labels of each image."""
    matrix = np.zeros((len(images), 256), dtype=bool)
    for row, labels in zip(matrix, images):
        row[list(labels)] = True
    return matrix


# -- tasks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('task, num_classes, expected', [
    ('19-1', 20, (19, 1)),
    ('15-5', 20, (15, 5)),
    ('15-1', 20, (15, 1, 1, 1, 1, 1)),
    ('10-1', 20, (10, ) + (1, ) * 10),
    ('10-5', 20, (10, 5, 5)),
    ('5-3', 20, (5, 3, 3, 3, 3, 3)),
    ('100-50', 150, (100, 50)),
    ('100-10', 150, (100, 10, 10, 10, 10, 10)),
    ('50-50', 150, (50, 50, 50)),
    ('100-5', 150, (100, ) + (5, ) * 10),
    ('20-1', 20, (20, )),
    ('3-1', 5, (3, 1, 1)),
])
def test_class_counts_of_published_tasks(task, num_classes, expected):
    assert class_counts(task, num_classes) == expected


@pytest.mark.parametrize('task', ['15', '15-', '-1', '15_1', 'a-b', '15-1-1', ' 15-1', '1.5-1', None, 15, ('15', '1')])
def test_malformed_task_is_named_with_the_form_it_must_have(task):
    with pytest.raises(ValueError) as error:
        class_counts(task, 20)
    assert repr(task) in str(error.value) and "'B-I'" in str(error.value)


@pytest.mark.parametrize('task', ['0-5', '15-0', '0-0'])
def test_task_without_base_or_increment_is_refused(task):
    with pytest.raises(ValueError, match=f'{task}.*at least 1'):
        class_counts(task, 20)


@pytest.mark.parametrize('task', ['15-2', '21-1', '100-50'])
def test_task_that_does_not_add_up_names_class_count_and_remedy(task):
    with pytest.raises(ValueError, match=rf'{task}.* 20 foreground.*B \+ k\*I = 20.*scenario\.steps'):
        class_counts(task, 20)


@given(base=st.integers(1, 40), increment=st.integers(1, 12), later=st.integers(0, 8))
@settings(max_examples=50, deadline=None)
def test_steps_of_a_task_partition_the_classes_in_order(base, increment, later):
    labels = {f'c{i}': i + 1 for i in range(base + later * increment)}
    built = Scenario.build(labels, task=f'{base}-{increment}')
    assert sum(built.steps, ()) == tuple(labels)
    assert [len(names) for names in built.steps] == [base] + [increment] * later


# -- building --------------------------------------------------------------------------------------------------------


def test_task_takes_classes_in_natural_order():
    assert Scenario.build(LABELS, task='2-1').steps == (('cat', 'cow'), ('dog', ), ('hen', ))


@pytest.mark.parametrize('order', [['hen', 'cow', 'cat', 'dog'], [7, 2, 1, 4], ['hen', 2, 'cat', 4]])
def test_class_order_by_name_or_raw_label(order):
    assert Scenario.build(LABELS, task='2-1', class_order=order).steps == (('hen', 'cow'), ('cat', ), ('dog', ))


@pytest.mark.parametrize('order, words', [
    (['hen', 'cow', 'cat'], ["missing ['dog']", '3 names for 4']),
    (['hen', 'cow', 'cat', 'bat'], ["missing ['dog']", "unknown ['bat']"]),
    (['hen', 'cow', 'cat', 'cat'], ["missing ['dog']", 'exactly once']),
    ([7, 2, 1, 3], ["missing ['dog']", 'unknown [3]']),
])
def test_wrong_class_order_says_what_is_missing_and_unknown(order, words):
    with pytest.raises(ValueError) as error:
        Scenario.build(LABELS, task='2-1', class_order=order)
    assert all(word in str(error.value) for word in words)


def test_ignored_classes_are_divided_among_no_steps_and_trained_nowhere():
    built = Scenario.build(LABELS, task='2-1', ignored_classes=['cow'])
    assert built.steps == (('cat', 'dog'), ('hen', ))
    assert built.train_label_map(0)[LABELS['cow']] == built.test_label_map(1)[LABELS['cow']] == 255
    assert scenario(steps=[['cat'], ['dog']], ignored_classes=['cow', 'hen']).steps == (('cat', ), ('dog', ))


def test_ignored_class_that_is_unknown_or_in_a_step_is_named():
    with pytest.raises(ValueError, match=r"names 'bat', which is not a foreground class .* cat, cow, dog"):
        Scenario.build(LABELS, task='2-1', ignored_classes=['cow', 'bat'])
    with pytest.raises(ValueError, match=r"Both scenario\.ignored_classes and scenario\.steps name 'hen'"):
        scenario(ignored_classes=['hen'])


def test_class_order_beside_steps_is_refused():
    with pytest.raises(ValueError, match='class_order is only for task'):
        scenario(class_order=list(LABELS))


@pytest.mark.parametrize('kwargs', [{}, dict(task='2-1', steps=[['cat']])])
def test_exactly_one_of_task_and_steps(kwargs):
    with pytest.raises(ValueError, match="exactly one of task='B-I' and steps"):
        Scenario.build(LABELS, **kwargs)


@pytest.mark.parametrize('steps', ['cat', ['cat', 'cow'], [['cat'], 'cow']])
def test_steps_must_be_lists_of_lists(steps):
    with pytest.raises(ValueError, match='must be a list, each item a list, each item a string'):
        Scenario.build(LABELS, steps=steps)


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match='steps is empty'):
        scenario(steps=[])


def test_empty_step_is_named():
    with pytest.raises(ValueError, match=r'steps\[1\] is empty'):
        scenario(steps=[['cat'], []])


def test_unknown_class_is_named_with_the_nearest():
    with pytest.raises(ValueError, match=r"steps\[1\] names the unknown class 'dgo': did you mean 'dog'\?"):
        scenario(steps=[['cat'], ['dgo']])


def test_unknown_class_without_a_near_one_lists_the_known():
    with pytest.raises(ValueError, match=r"'zebra'; known classes are cat, cow, dog, hen"):
        scenario(steps=[['zebra']])


def test_class_in_two_steps_is_named():
    with pytest.raises(ValueError, match=r"steps\[1\] names the class 'cat' a second time"):
        scenario(steps=[['cat'], ['cow', 'cat']])


@pytest.mark.parametrize('name, value, near', [
    ('setting', 'overlap', 'overlapped'),
    ('setting', 'disjont', 'disjoint'),
    ('label_protocol', 'plopp', 'plop'),
])
def test_misspelt_choice_is_named_with_the_nearest(name, value, near):
    with pytest.raises(ValueError, match=rf"scenario\.{name}='{value}'.*: did you mean '{near}'\?"):
        scenario(**{name: value})


def test_misspelt_option_is_named_with_the_nearest():
    with pytest.raises(ValueError, match="no option 'seting': did you mean 'setting'"):
        scenario(seting='disjoint')


def test_foreign_option_lists_the_options():
    with pytest.raises(ValueError, match=r"no option 'x'.*class_order"):
        scenario(x=1)


def test_image_list_of_a_step_that_does_not_exist():
    with pytest.raises(ValueError, match='image_lists names step 3, but the steps are 0 to 2'):
        scenario(image_lists={3: 'a.npy'})


def test_image_lists_are_keyed_by_steps():
    with pytest.raises(ValueError, match="image_lists has the key 'first': its keys must be step numbers"):
        scenario(image_lists={1: 'a.npy', 'first': 'b.npy', 'second': 'c.npy'})
    with pytest.raises(ValueError, match='image_lists names step -1'):
        Scenario(LABELS, (('cow', ), ), image_lists={-1: 'a.npy'})


@pytest.mark.parametrize('background', [-1, 255, 256, LABELS['cow']])
def test_a_background_that_no_mask_can_hold_or_that_is_a_class_is_refused(background):
    with pytest.raises(ValueError, match=rf'background={background} must be a raw label from 0 to 254 that is not'):
        scenario(background=background)


def test_zero_cannot_be_void_and_a_class():
    with pytest.raises(ValueError, match='zero_is_void=True, but raw label 0 is a class'):
        Scenario.build({'road': 0, 'car': 1}, task='1-1', background=None, zero_is_void=True)


def test_every_step_may_have_an_image_list():
    lists = {0: 'a.npy', 1: 'b.npy', 2: 'c.npy'}
    assert scenario(image_lists=lists).image_lists == lists


def test_the_last_label_may_be_background():
    assert scenario(background=254).train_label_map(0)[254] == 0


@pytest.mark.parametrize('given_lists', [[None, 'b.txt', None], {1: 'b.txt'}, {'1': 'b.txt'}])
def test_image_lists_as_list_or_mapping(given_lists):
    assert scenario(image_lists=given_lists).image_lists == {1: 'b.txt'}


# -- classes of a step -----------------------------------------------------------------------------------------------


def test_class_indices_follow_the_order_of_learning():
    assert scenario().class_names(1) == ('background', 'cow', 'dog', 'hen')
    assert scenario().seen_classes(2) == ('cow', 'dog', 'hen', 'cat')


def test_channels_grow_with_the_steps_from_none():
    assert [scenario().num_classes(t) for t in (-1, 0, 1, 2)] == [0, 3, 4, 5]


def test_metric_groups_leave_background_out():
    assert scenario().metric_groups(0) == dict(old=(1, 2), new=(), all=(1, 2))
    assert scenario().metric_groups(2) == dict(old=(1, 2), new=(3, 4), all=(1, 2, 3, 4))


@pytest.mark.parametrize('step', [-1, 3])
@pytest.mark.parametrize('method', ['train_label_map', 'test_label_map', 'check_step'])
def test_step_that_does_not_exist_is_named(method, step):
    with pytest.raises(ValueError, match=f'no step {step}: this scenario has steps 0 to 2'):
        getattr(scenario(), method)(step)


# -- images of a step ------------------------------------------------------------------------------------------------

# cow, dog | hen | cat
IMAGES = presence(
    {0, 2}, {0, 2, 255}, {2, 7}, {0, 7}, {4, 7, 255}, {1, 2, 7}, {0, 1}, {0, 255}, {4, 1})


@pytest.mark.parametrize('setting, expected', [
    ('overlapped', ([0, 1, 2, 4, 5, 8], [2, 3, 4, 5], [5, 6, 8])),
    ('disjoint', ([0, 1], [2, 3, 4], [5, 6, 8])),
    ('sequential', ([0, 1], [2, 3, 4], [5, 6, 8])),
])
def test_images_a_step_may_train_on(setting, expected):
    chosen = [scenario(setting=setting).select_train(IMAGES, t).tolist() for t in range(3)]
    assert chosen == list(expected)


def test_test_images_hold_a_seen_class_and_the_last_step_takes_all():
    chosen = [scenario().select_test(IMAGES, t).tolist() for t in range(3)]
    assert chosen == [[0, 1, 2, 4, 5, 8], [0, 1, 2, 3, 4, 5, 8], list(range(9))]


@given(st.lists(st.sets(st.sampled_from([0, 1, 2, 4, 7, 255])), max_size=12))
@settings(max_examples=50, deadline=None)
def test_disjoint_images_are_overlapped_ones_and_come_once(images):
    matrix = presence(*images)
    seen = []
    for t in range(3):
        disjoint = scenario(setting='disjoint').select_train(matrix, t)
        assert set(disjoint) <= set(scenario().select_train(matrix, t))
        seen += disjoint.tolist()
    assert sorted(seen) == np.flatnonzero(matrix[:, list(LABELS.values())].any(axis=1)).tolist()


def partition(matrix, names, **kwargs):
    """Step of each image of the partitioned setting; None for those of no step."""
    built, steps = scenario(setting='partitioned', **kwargs), [None] * len(names)
    for t in range(built.num_steps):
        for i in built.select_train(matrix, t, names):
            assert steps[i] is None  # of one step at most
            steps[i] = t
    return steps


CONTENTS = st.lists(st.sets(st.sampled_from([0, 1, 2, 4, 7, 255])), max_size=12)


@given(CONTENTS, st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_a_partition_has_every_image_with_a_scheduled_class_once_and_at_a_step_of_its_classes(images, seed):
    matrix, names = presence(*images), [f'image {i}' for i in range(len(images))]
    steps = [['cow', 'dog'], ['cat']]  # hen is ignored
    for labels, step in zip(images, partition(matrix, names, steps=steps, partition_seed=seed)):
        shown = {t for t, learnt in enumerate(steps) if labels & {LABELS[name] for name in learnt}}
        assert step in shown if shown else step is None


@given(CONTENTS, st.randoms())
@settings(max_examples=50, deadline=None)
def test_an_image_s_step_does_not_depend_on_other_images(images, random):
    names = [f'image {i}' for i in range(len(images))]
    whole = dict(zip(names, partition(presence(*images), names)))
    kept = random.sample(range(len(images)), random.randint(0, len(images)))
    some = partition(presence(*(images[i] for i in kept)), [names[i] for i in kept])
    assert some == [whole[names[i]] for i in kept]


def test_a_class_keeps_its_images_in_another_task_and_order():
    names = [f'{i}' for i in range(200)]
    matrix = presence(*[{1, 2, 4, 7}] * 200)
    fine = partition(matrix, names, steps=[['cow'], ['dog'], ['hen'], ['cat']])
    coarse = partition(matrix, names, steps=[['hen', 'cat'], ['dog', 'cow']])
    assert set(zip(fine, coarse)) == {(0, 1), (1, 1), (2, 0), (3, 0)}


def test_an_image_s_class_is_drawn_uniformly_among_those_it_shows():
    number = 6000
    names = [f'2008_{i:06d}' for i in range(number)]
    # cow, dog (step 0), hen (1) and cat (2): by classes, step 0 gets two images of four.
    drawn = {seed: np.array(partition(presence(*[{1, 2, 4, 7}] * number), names, partition_seed=seed))
             for seed in (0, 1)}
    for steps in drawn.values():
        # Five standard deviations of a binomial share.
        np.testing.assert_allclose(np.bincount(steps) / number, [0.5, 0.25, 0.25], atol=5 * (0.25 / number)**0.5)
    # Seeds are independent: chance agreement is 1/4 + 1/16 + 1/16.
    assert np.mean(drawn[0] == drawn[1]) == pytest.approx(0.375, abs=5 * (0.25 / number)**0.5)


def test_a_partition_is_the_same_on_every_machine():
    # Written down once: another hash would divide the images of finished runs otherwise.
    assert partition(presence(*[{1, 2, 4, 7}] * 8), [f'2007_{i:06d}' for i in range(8)]) == [
        0, 1, 0, 0, 2, 0, 2, 0]


def test_a_seed_of_a_partition_is_a_whole_number():
    with pytest.raises(ValueError, match=r"scenario\.partition_seed='one' must be a whole number"):
        scenario(partition_seed='one')


def test_a_partition_needs_the_names_of_all_images():
    with pytest.raises(ValueError, match='0 names for 9 images'):
        scenario(setting='partitioned').select_train(IMAGES, 0)


# -- labels of a step ------------------------------------------------------------------------------------------------


def test_mib_trains_old_future_and_void_as_background():
    assert scenario().train_label_map(1) == {0: 0, 2: 0, 4: 0, 7: 3, 1: 0, 255: 0}


def test_plop_trains_old_and_future_as_background_and_ignores_void():
    assert scenario(label_protocol='plop').train_label_map(1) == {0: 0, 2: 0, 4: 0, 7: 3, 1: 0, 255: 255}


@pytest.mark.parametrize('protocol', ['mib', 'plop'])
def test_a_partitioned_step_has_the_labels_of_overlapped(protocol):
    for t in range(3):
        assert scenario(setting='partitioned', label_protocol=protocol).train_label_map(t) == scenario(
            label_protocol=protocol).train_label_map(t)


@pytest.mark.parametrize('protocol, void', [('mib', 0), ('plop', 255)])
def test_sequential_training_keeps_old_labels(protocol, void):
    mapping = scenario(setting='sequential', label_protocol=protocol).train_label_map(1)
    assert mapping == {0: 0, 2: 1, 4: 2, 7: 3, 1: 0, 255: void}


@pytest.mark.parametrize('setting', SETTINGS)
def test_mib_evaluation_ignores_future_and_void(setting):
    assert scenario(setting=setting).test_label_map(1) == {0: 0, 2: 1, 4: 2, 7: 3, 1: 255, 255: 255}


def test_plop_evaluation_counts_future_as_background():
    assert scenario(label_protocol='plop').test_label_map(1) == {0: 0, 2: 1, 4: 2, 7: 3, 1: 0, 255: 255}


@pytest.mark.parametrize('protocol', ['mib', 'plop'])
def test_last_step_evaluates_every_class(protocol):
    assert scenario(label_protocol=protocol).test_label_map(2) == {0: 0, 2: 1, 4: 2, 7: 3, 1: 4, 255: 255}


@pytest.mark.parametrize('protocol, train_255, test_zero, future', [('mib', 0, 255, 255), ('plop', 255, 0, 0)])
def test_zero_that_means_void_trains_as_background(protocol, train_255, test_zero, future):
    ade = scenario(zero_is_void=True, label_protocol=protocol)
    assert ade.train_label_map(1) == {0: 0, 2: 0, 4: 0, 7: 3, 1: 0, 255: train_255}
    assert ade.test_label_map(1) == {0: test_zero, 2: 1, 4: 2, 7: 3, 1: future, 255: 255}


@pytest.mark.parametrize('background', [1, None])
@pytest.mark.parametrize('protocol, train_void', [('mib', 0), ('plop', 255)])
def test_zero_that_means_void_trains_as_255_where_it_is_not_background(background, protocol, train_void):
    """LoveDA's background is 1; other masks have none."""
    built = Scenario.build(
        {'road': 2, 'water': 3}, task='1-1', background=background, zero_is_void=True, label_protocol=protocol)
    real = {} if background is None else {background: 0}
    assert built.train_label_map(0) == {**real, 0: train_void, 2: 1, 3: 0, 255: train_void}
    assert built.test_label_map(1) == {**real, 0: 255, 2: 1, 3: 2, 255: 255}
    assert built.known_labels() == set(real) | {0, 2, 3, 255}


@pytest.mark.parametrize('protocol', ['mib', 'plop'])
def test_classes_outside_the_scenario_are_ignored_everywhere(protocol):
    partial = scenario(steps=[['cow'], ['hen']], label_protocol=protocol)
    for t in range(2):
        for mapping in (partial.train_label_map(t), partial.test_label_map(t)):
            assert mapping[LABELS['cat']] == mapping[LABELS['dog']] == 255


def test_class_order_moves_the_class_indices():
    reordered = Scenario.build(LABELS, task='2-2', class_order=['hen', 'dog', 'cow', 'cat'])
    assert reordered.train_label_map(0) == {0: 0, 7: 1, 4: 2, 2: 0, 1: 0, 255: 0}
    assert reordered.test_label_map(1) == {0: 0, 7: 1, 4: 2, 2: 3, 1: 4, 255: 255}


def test_masks_without_background_have_no_label_for_it():
    cityscapes = Scenario.build({'road': 0, 'car': 1}, task='1-1', background=None)
    assert cityscapes.known_labels() == {0, 1, 255}
    assert cityscapes.train_label_map(0) == {0: 1, 1: 0, 255: 0}
    assert cityscapes.test_label_map(0) == {0: 1, 1: 255, 255: 255}


@st.composite
def scenarios(draw):
    labels = {f'c{label}': label for label in draw(st.lists(st.integers(1, 254), min_size=1, max_size=9, unique=True))}
    names = draw(st.permutations(list(labels)))
    names = names[:draw(st.integers(1, len(names)))]
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(names) - 1)), max_size=3)) - {len(names)})
    steps = [names[a:b] for a, b in zip([0, *cuts], [*cuts, len(names)])]
    return Scenario.build(
        labels,
        steps=steps,
        setting=draw(st.sampled_from(SETTINGS)),
        label_protocol=draw(st.sampled_from(['mib', 'plop'])),
        zero_is_void=draw(st.booleans()))


@given(scenarios())
@settings(max_examples=60, deadline=None)
def test_label_maps_are_total_and_stay_within_the_channels(built):
    for t in range(built.num_steps):
        for mapping in (built.train_label_map(t), built.test_label_map(t)):
            assert set(mapping) == built.known_labels()
            assert set(mapping.values()) <= set(range(built.num_classes(t))) | {255}


@given(scenarios())
@settings(max_examples=60, deadline=None)
def test_every_current_class_has_one_index_in_training_and_evaluation(built):
    for t, names in enumerate(built.steps):
        train, test = built.train_label_map(t), built.test_label_map(t)
        for name in names:
            label = built.labels[name]
            assert train[label] == test[label] == built.class_names(t).index(name)
            assert list(train.values()).count(train[label]) == 1


@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 3), st.sampled_from(['mib', 'plop']))
@settings(max_examples=40, deadline=None)
def test_evaluation_labels_of_a_naturally_ordered_dataset_map_onto_themselves(base, increment, later, protocol):
    # Raw labels 1..C in order are already class indices: mapping twice changes nothing.
    labels = {f'c{i}': i for i in range(1, base + increment * later + 1)}
    built = Scenario.build(labels, task=f'{base}-{increment}', label_protocol=protocol)
    for t in range(built.num_steps):
        for mapping in (built.train_label_map(t), built.test_label_map(t)):
            assert all(mapping[value] == value for value in mapping.values())


# -- image lists -----------------------------------------------------------------------------------------------------

NAMES = ['2007_000032', '2007_000039', 'train/x.1', '2008_000001']


def save(path, array):
    np.save(path, array)
    return str(path)


def text(path, content):
    path.write_text(content)
    return str(path)


@pytest.mark.parametrize('dtype', [np.int64, np.uint8, np.int32])
def test_positions_in_the_order_of_the_list(tmp_path, dtype):
    found = load_image_list(save(tmp_path / 'a.npy', np.array([3, 0, 1], dtype=dtype)), NAMES)
    assert found.tolist() == [3, 0, 1] and found.dtype == np.int64


def test_column_of_positions_is_flattened(tmp_path):
    assert load_image_list(save(tmp_path / 'a.npy', np.array([[3], [0]])), NAMES).tolist() == [3, 0]


@pytest.mark.parametrize('dtype', ['U', 'S'])
def test_names_in_npy(tmp_path, dtype):
    path = save(tmp_path / 'a.npy', np.array(['2008_000001', '2007_000032'], dtype=dtype))
    assert load_image_list(path, NAMES).tolist() == [3, 0]


@pytest.mark.parametrize('line', [
    '2007_000039', '2007_000039.jpg', 'JPEGImages/2007_000039.jpg', '/JPEGImages/2007_000039.jpg  ',
    'JPEGImages\\2007_000039.png', '/JPEGImages/2007_000039.jpg /SegmentationClassAug/2007_000039.png'
])
def test_names_in_txt_with_folder_and_suffix(tmp_path, line):
    assert load_image_list(text(tmp_path / 'a.txt', f'\n{line}\r\n\n2007_000032\n'), NAMES).tolist() == [1, 0]


def test_name_that_itself_has_a_dot_and_a_folder(tmp_path):
    assert load_image_list(text(tmp_path / 'a.txt', 'train/x.1\n'), NAMES).tolist() == [2]


@pytest.mark.parametrize('bad', [-1, 4, 10581])
def test_position_out_of_range_names_it_and_the_size(tmp_path, bad):
    path = save(tmp_path / 'a.npy', np.array([0, bad]))
    with pytest.raises(ValueError, match=rf'a\.npy.* contains position {bad}, but the dataset has 4 images'):
        load_image_list(path, NAMES)


def test_unknown_names_are_counted_and_the_first_named(tmp_path):
    with pytest.raises(ValueError, match=r"a\.txt' names 2 images .* such as '2009_1'"):
        load_image_list(text(tmp_path / 'a.txt', '2007_000032\n2009_1\n2009_2\n'), NAMES)


@pytest.mark.parametrize('items', [np.array([0, 3, 0]), np.array(['2007_000032', '2007_000032.jpg'])])
def test_image_listed_twice_is_named(tmp_path, items):
    with pytest.raises(ValueError, match=r"a\.npy' contains '2007_000032' more than once"):
        load_image_list(save(tmp_path / 'a.npy', items), NAMES)


class Payload:
    """Pickles as a call that creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


def test_pickled_object_array_is_refused_and_not_run(tmp_path):
    array = np.array([Payload(tmp_path / 'ran')], dtype=object)
    np.save(tmp_path / 'a.npy', array, allow_pickle=True)
    with pytest.raises(ValueError, match=r'a\.npy.*no pickled objects'):
        load_image_list(str(tmp_path / 'a.npy'), NAMES)
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('name', ['a.csv', 'a', 'a.npz', 'a.NPY.bak'])
def test_other_suffixes_are_refused_with_the_choices(tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name}' must end in \.npy .* or \.txt"):
        load_image_list(str(tmp_path / name), NAMES)


@pytest.mark.parametrize('name', ['a.npy', 'a.txt'])
def test_missing_list_is_named(tmp_path, name):
    with pytest.raises(ValueError, match=f'{name}.*cannot be read'):
        load_image_list(str(tmp_path / name), NAMES)


@pytest.mark.parametrize('array', [np.array([0.0, 1.0]), np.array([True, False])])
def test_neither_integers_nor_names(tmp_path, array):
    with pytest.raises(ValueError, match=f'array of {array.dtype}, but must contain integers or names'):
        load_image_list(save(tmp_path / 'a.npy', array), NAMES)


@pytest.mark.parametrize('size', [0, 5, 130])
def test_truncated_npy_is_named(tmp_path, size):
    path = save(tmp_path / 'a.npy', np.arange(3))
    with open(path, 'r+b') as file:
        file.truncate(size)
    with pytest.raises(ValueError, match=r'a\.npy.*cannot be read'):
        load_image_list(path, NAMES)


def test_archive_called_npy_is_named(tmp_path):
    with open(tmp_path / 'a.npy', 'wb') as file:
        np.savez(file, positions=np.arange(3))
    with pytest.raises(ValueError, match=r'a\.npy'):
        load_image_list(str(tmp_path / 'a.npy'), NAMES)


def test_txt_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / 'a.txt').write_bytes(b'\xff\xfe2\x000\x00')
    with pytest.raises(ValueError, match=r'a\.txt.*cannot be read'):
        load_image_list(str(tmp_path / 'a.txt'), NAMES)
