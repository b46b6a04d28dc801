# Learning rate and frozen norm layers for VOC-animals, on held-back images of step 0's classes (benchmarks/grid.py).
_base_ = ['voc_animals_tuning.py']
comparison = dict(methods=__import__('benchmarks.grid', fromlist=['rows']).rows(0.003, 0.01))
