# FT (fine-tuning), the lower bound: trains on new labels only.
__import__('mmseg_hrhf').register_all()  # not custom_imports, which another base config may set
runner_type = 'IncrementalRunner'
method = dict(type='FineTuning')
replay = None
