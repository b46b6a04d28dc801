"""Measure images of SegInversion: recognition by the teacher and a second network, smoothness, area by r.

The second network (same classes, another training seed) distinguishes images of objects from adversarial noise: it
shows whether another network finds the classes, and how far the features are from those of its training images.

    python benchmarks/measure_inversion.py RUN_CONFIG WORK_DIR/step_0 --second OTHER_WORK_DIR/step_0 --out DIR \
        [--cfg-options replay.inversion.lr=0.05 ...] [--images 32] [--areas [R ...]]
    python benchmarks/measure_inversion.py RUN_CONFIG WORK_DIR/step_0 --second OTHER_WORK_DIR/step_0 --out DIR \
        --buffer WORK_DIR/step_1/fakes
"""
import argparse
import copy
import json
import time
from pathlib import Path

import numpy as np
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, TASK_UTILS
from PIL import Image

from mmseg_hrhf.analysis.finished_step import FinishedStep
from mmseg_hrhf.config.load import load_config
from mmseg_hrhf.config.run import RunConfig
from mmseg_hrhf.models.heads import predicted_logits
from mmseg_hrhf.replay.inspection import recognised
from mmseg_hrhf.replay.inversion.base import FakeRequest, plan_requests
from mmseg_hrhf.replay.inversion.feature_statistics import FeatureStatistics, feature_targets
from mmseg_hrhf.replay.inversion.objective import total_variation
from mmseg_hrhf.replay.inversion.pixels import PixelSpace

R_VALUES = (0.5, 1, 5, 10, 20)


def load_step(folder):
    """A step's frozen network, its plain config, and its recorded feature statistics, or None."""
    step = FinishedStep(folder, 'cpu')
    return step.model, step.cfg, step.feature_statistics


def found(model, images, requests):
    """Share of (image, requested class) pairs whose predicted mask contains the class, and their mean area."""
    shares = torch.cat([recognised(model, batch) for batch in images])
    classes = [classes for request in requests for classes in request.classes]
    asked = torch.tensor([float(shares[i, c]) for i, held in enumerate(classes) for c in held])
    return (asked > 0).float().mean().item(), asked.mean().item()


@torch.no_grad()
def feature_distance(model, recorded, images):
    """Mean distance of batches from the feature statistics of ``model``'s training; None if it has none."""
    space, distances = PixelSpace(model.data_preprocessor, torch.device('cpu')), []
    with FeatureStatistics(feature_targets(model, recorded)) as statistics:
        for batch in images:
            predicted_logits(model, space.to_network(space.from_pixels(batch)))
            distances.append(statistics.loss())
    return None if None in distances else float(torch.stack(distances).mean())


def variation(images):
    """Mean total variation of (N, H, W, 3) uint8 images, scaled to [-1, 1]."""
    return total_variation(images.permute(0, 3, 1, 2).float() / 127.5 - 1).mean().item()


def real_variation(cfg, size, number=64):
    """The same for centre crops of real images at test scale."""
    dataset = copy.deepcopy(cfg.test_dataloader.dataset)
    dataset.pipeline = [transform for transform in dataset.pipeline if transform.type not in ('LoadAnnotations', )]
    dataset = DATASETS.build(dataset)
    values = []
    for i in range(min(number, len(dataset))):
        image = dataset[i]['inputs']
        top, left = ((side - want) // 2 for side, want in zip(image.shape[1:], size))
        crop = image[:, max(top, 0):max(top, 0) + size[0], max(left, 0):max(left, 0) + size[1]]
        values.append(variation(crop.permute(1, 2, 0)[None]))
    return float(np.mean(values))


def grid(images, path, columns=8):
    rows = [np.concatenate(list(images[i:i + columns]), axis=1) for i in range(0, len(images), columns)]
    width = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    Image.fromarray(np.concatenate(rows)).save(path)


def synthesise(inversion, model, requests, recorded):
    generator, images, losses = TASK_UTILS.build(inversion), [], []
    began = time.time()
    for request in requests:
        batch = generator(model, request, recorded=recorded)
        images.append(batch.images)
        losses.append(batch.losses)
    seconds = (time.time() - began) / sum(map(len, requests))
    means = {name: float(np.mean([item[name] for item in losses])) for name in losses[0]}
    return images, means, seconds


def stored(folder, batch_size):
    """Images of a buffer, in batches, and their requested classes."""
    records = [json.loads(line) for line in (folder / 'manifest.jsonl').read_text().splitlines()]
    images, requests = [], []
    for start in range(0, len(records), batch_size):
        chunk = records[start:start + batch_size]
        arrays = [np.asarray(Image.open(folder / record['image'])) for record in chunk]
        images.append(torch.from_numpy(np.stack(arrays)))
        requests.append(FakeRequest(tuple(tuple(record['classes']) for record in chunk), 0))
    return images, requests


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of the run, for its replay.inversion')
    parser.add_argument('step', help='folder of a finished step')
    parser.add_argument('--second', help='folder of the same step of a run with another seed')
    parser.add_argument('--out', required=True, help='folder for pictures and inversion.json')
    parser.add_argument('--images', type=int, default=32)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--buffer', help='measure the fakes a run has made instead of making some')
    parser.add_argument(
        '--areas',
        type=float,
        nargs='*',
        metavar='R',
        help=f'also the mean area by r, from the same noise (default: {R_VALUES})')
    parser.add_argument('--cfg-options', nargs='+')
    args = parser.parse_args()
    inversion = RunConfig.parse(load_config(args.config, args.cfg_options)).replay.inversion
    init_default_scope('mmseg')
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    model, cfg, recorded = load_step(args.step)
    generator = TASK_UTILS.build(inversion)
    requests = plan_requests(args.images, model.num_classes, min(generator.batch_size, args.images),
                             generator.classes_per_image, args.seed)
    if args.buffer:
        images, requests = stored(Path(args.buffer), generator.batch_size)
        report = dict(images=sum(map(len, requests)))
    else:
        images, losses, seconds = synthesise(inversion, model, requests, recorded)
        report = dict(images=args.images, losses=losses, seconds_per_image=round(seconds, 2))
    report['teacher_finds'], report['mean_area'] = found(model, images, requests)
    report['variation_fake'] = variation(torch.cat(images))
    report['variation_real'] = real_variation(cfg, generator.size)
    if args.second:
        second, _, second_recorded = load_step(args.second)
        report['second_net_finds'], report['second_net_area'] = found(second, images, requests)
        report['second_net_feature_distance'] = feature_distance(second, second_recorded, images)
    grid(torch.cat(images).numpy(), out / 'fakes.png')
    if args.areas is not None:
        report['area_by_r'] = {}
        rows = []
        classes = tuple((1 + i % (model.num_classes - 1), ) for i in range(args.images))
        background_r = (inversion.get('aggregation') or {}).get('background_r')
        for r in args.areas or R_VALUES:
            fixed = copy.deepcopy(inversion)
            fixed['aggregation'] = dict(type='ScaleAwareAggregation', r=r, background_r=background_r)
            request = FakeRequest(classes, args.seed)
            batch, _, _ = synthesise(fixed, model, [request], recorded)
            report['area_by_r'][r] = found(model, batch, [request])[1]
            rows.append(batch[0].numpy())
        grid(np.concatenate(rows), out / 'fakes_by_r.png')
    (out / 'inversion.json').write_text(json.dumps(report, indent=1) + '\n')
    print(json.dumps(report, indent=1))


if __name__ == '__main__':
    main()
