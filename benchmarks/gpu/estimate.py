"""Minutes of VOC 15-1 on one GPU and on eight, from what the other parts measured."""
from __future__ import annotations

from extrapolation import FEWEST_FAKES, MOST_FAKES, RUNS

from .parts import read
from .place import PRECISIONS, Place

RUN = 'VOC 15-1'
DEVICES = (1, 8)


def estimate(place: Place) -> dict:
    """Minutes of each part of the run, in each precision and way of synthesis."""
    parts = {name: record['result'] for name, record in read(place.results)['parts'].items() if 'result' in record}
    found = {}
    for precision in PRECISIONS:
        training, inversion = (parts.get(f'{kind}, {precision}') for kind in ('training, HRHF', 'inversion'))
        if training is None or inversion is None or 'synthesis' not in parts or 'data' not in parts:
            continue
        for way, seconds in parts['synthesis']['seconds_of_fakes'][precision].items():
            found[f'{precision}, {way}'] = minutes(
                training['images_per_second'], inversion['images_per_second_forward'],
                seconds / parts['synthesis']['fakes'], parts['data']['images_per_second'])
    if not found:
        return dict(unavailable='training, inversion, synthesis and data have not all been measured')
    return dict(minutes=found, run=RUN)


def minutes(training: dict, forward: float, seconds_of_a_fake: float, data: dict) -> dict[str, float]:
    """Minutes of each part on one GPU, of all, and of all on eight: an eighth, nothing added for communication.

    Training and loading overlap, so the slower of the two counts; eight GPUs are taken to have eight times the cores.

    Args:
        training: images a second of mmseg's plain training (step 0) and of ours, real and fake ones alike.
        forward: test images a second, of training's size.
        seconds_of_a_fake: by some schedule.
        data: images a second that the loader brings in step 0 and later.
    """
    run = RUNS[RUN]
    first, *later = run['real']
    fakes = sum(min(max(FEWEST_FAKES, number), MOST_FAKES) for number in later)
    seconds = {
        'step 0': first * run['epochs'] / min(training['plain'], data['plain']),
        'steps from 1 on': 2 * sum(later) * run['epochs'] / min(training['ours'], data['ours']),
        'inversion': fakes * seconds_of_a_fake,
        'tests': len(run['real']) * run['tested'] / forward,
    }
    total = sum(seconds.values())
    return {**{name: value / 60 for name, value in seconds.items()},
            **{f'all on {number}': total / 60 / number for number in DEVICES}}
