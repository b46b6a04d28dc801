"""The row that tells what the background of fakes costs: which pixels have a label."""
import runpy
from types import SimpleNamespace

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmseg_hrhf.models.segmentors.hrhf import HRHF
from mmseg_hrhf.models.student_pass import stacked_labels
from mmseg_hrhf.replay.buffer import FakeImageBuffer
from mmseg_hrhf.work_dir.layout import StepFiles


def test_fakes_have_the_labels_of_old_classes_alone(repo, tmp_path, monkeypatch):
    kind = runpy.run_path(str(repo / 'benchmarks/unlabelled_background.py'))['UnlabelledFakeBackground']
    model = kind.__new__(kind)
    torch.nn.Module.__init__(model)
    model.student = SimpleNamespace(decode_head=SimpleNamespace(ignore_index=255))
    predicted = torch.tensor([[[0, 1, 2, 0]], [[0, 1, 2, 0]]])
    monkeypatch.setattr(HRHF, 'teacher_logits',
                        lambda self, inputs: torch.nn.functional.one_hot(predicted).permute(0, 3, 1, 2).float())
    monkeypatch.setattr(HRHF, 'incremental_loss', lambda self, inputs, samples: stacked_labels(samples))
    fake = str(FakeImageBuffer(StepFiles(str(tmp_path), 1).fakes, 4).image_path(0))
    samples = [SegDataSample(gt_sem_seg=PixelData(data=torch.tensor([labels])), metainfo=dict(img_path=path))
               for labels, path in (([[0, 3, 0, 255]], 'fakes/JPEGImages/0.jpg'), ([[0, 0, 255, 0]], fake))]
    labels = model.incremental_loss(torch.zeros(2, 3, 1, 4), samples)
    assert labels.tolist() == [[[0, 3, 0, 255]], [[255, 1, 255, 255]]]
    with pytest.raises(ValueError, match='No image of a batch is a fake'):
        model.incremental_loss(torch.zeros(1, 3, 1, 4), samples[:1])
