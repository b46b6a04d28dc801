"""Plot synthetic images of one or several classes from the same noise with different r (Fig. 3).

    python tools/plot_scales.py CONFIG WORK_DIR/step_0 --classes cat dog cat+dog --out scales.png
"""
import argparse


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of the run, for its replay.inversion')
    parser.add_argument('step', help='folder of a finished step')
    parser.add_argument('--classes', nargs='+', required=True, metavar='NAME[+NAME...]', help='classes of each image')
    parser.add_argument('--r', nargs='+', type=float, default=[0.5, 1, 5, 10, 20])
    parser.add_argument('--seed', type=int, default=0, help='seed of the noise (default: 0)')
    parser.add_argument('--out', default='scales.png', help='picture to write (.png, .svg, .pdf)')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--cfg-options', nargs='+', metavar='KEY=VALUE', help='override settings of the config')
    return parser.parse_args()


def main():
    args = parse_args()
    import torch

    import mmseg_hrhf
    mmseg_hrhf.register_all()
    from mmseg_hrhf.analysis.figures import draw_scales, inversion_options, invert_scales
    from mmseg_hrhf.analysis.finished_step import FinishedStep
    from mmseg_hrhf.config.load import load_config
    from mmseg_hrhf.config.run import RunConfig
    from mmseg_hrhf.replay.inspection import recognised
    inversion = inversion_options(RunConfig.parse(load_config(args.config, args.cfg_options)))
    step = FinishedStep(args.step, args.device)
    names = [text.split('+') for text in args.classes]
    indices = [[step.class_index(name) for name in image] for image in names]
    images = invert_scales(step, inversion, indices, args.r, args.seed)
    shares = {}
    for r, batch in images.items():
        area = recognised(step.model, batch)
        shares[r] = torch.stack([area[i, held].sum() for i, held in enumerate(indices)])
        print(f'r = {r:g}: mean area {100 * float(shares[r].mean()):.1f} %')
    draw_scales(images, shares, names, args.out)
    print(args.out)


if __name__ == '__main__':
    try:
        main()
    except Exception as error:
        from mmseg_hrhf.utils.errors import report_and_exit
        report_and_exit(error)
