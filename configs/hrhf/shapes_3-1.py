# The complete method on generated data; runs in minutes on a CPU.
_base_ = [
    '../_base_/models/fcn_small.py', '../_base_/datasets/shapes.py', '../_base_/schedules/shapes.py',
    '../_base_/default_runtime.py', '../_base_/methods/hrhf.py'
]
scenario = dict(task='3-1', setting='overlapped')
replay = dict(
    num_images=192,
    # Prior and feature weights tuned on step 0: synthetic images as smooth as real ones, and the network recognises all
    # classes in them (benchmarks/notes/seginversion.md).
    inversion=dict(
        size=96, batch_size=32, stages=[(0.5, 100), (1.0, 60)], lr=0.1, tv_weight=5.0, feature_weight=4.0))
