# Learning rate and frozen norm layers for Shapes, on held-back images of step 0's classes (benchmarks/grid.py).
_base_ = ['shapes_tuning.py']
comparison = dict(methods=__import__('benchmarks.grid', fromlist=['rows']).rows(0.02, 0.05))
