# Table 6: real:fake 1:2. The batch size must be divisible by 3; 6 on 4 GPUs gives the published total of 24.
_base_ = '../hrhf/voc_19-1.py'
replay = dict(ratio='1:2')
train_dataloader = dict(batch_size=6)
