# PLOP. As in its paper, void pixels are ignored in training, and future classes
# count as background in evaluation. For the protocol of the other methods, set label_protocol='mib'.
_base_ = '../hrhf/voc_15-1.py'
scenario = dict(label_protocol='plop')
method = dict(
    type='PLOP',
    loss_pod=dict(type='PODLoss', loss_weight=0.01),
    loss_pod_logits=dict(type='PODLoss', loss_weight=0.0005))
