# Table 6: real:fake 1:2. 6 per GPU can be divided so; 4 GPUs make the published 24.
_base_ = '../hrhf/voc_19-1.py'
replay = dict(ratio='1:2')
train_dataloader = dict(batch_size=6)
