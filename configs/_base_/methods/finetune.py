# FT: the lower bound. Trains on the new labels alone.
__import__('mmseg_hrhf').register_all()  # not by custom_imports, which a config beside this one may have of its own
runner_type = 'IncrementalRunner'
method = dict(type='FineTuning')
replay = None
