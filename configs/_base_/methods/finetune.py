# FT: the lower bound. Trains on the new labels alone.
custom_imports = dict(imports=['mmseg_hrhf'], allow_failed_imports=False)
runner_type = 'IncrementalRunner'
method = dict(type='FineTuning')
replay = None
