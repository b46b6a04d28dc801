# Table 6: real:fake 2:1. 6 per GPU can be divided so; 4 GPUs make the published 24.
_base_ = '../hrhf/voc_19-1.py'
replay = dict(ratio='2:1')
train_dataloader = dict(batch_size=6)
