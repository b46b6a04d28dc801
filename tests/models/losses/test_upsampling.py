"""Bands of an upsampling and their gradients, against F.interpolate."""
import pytest
import torch
import torch.nn.functional as F

from mmseg_hrhf.models.losses.upsampling import Upsampling, Workspace


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('small, large', [((5, 7), (37, 23)), ((1, 3), (9, 3)), ((12, 9), (5, 20))])
@pytest.mark.parametrize('height', [1, 4, 100])
def test_bands_make_up_the_whole(small, large, height, align_corners):
    torch.manual_seed(0)
    logits = torch.randn(2, 3, *small, dtype=torch.float64, requires_grad=True)
    whole = F.interpolate(logits, large, mode='bilinear', align_corners=align_corners)
    gradient = torch.randn_like(whole)
    expected = torch.autograd.grad(whole, logits, gradient)[0]
    up, found = Upsampling(small, large, align_corners, logits), torch.zeros_like(logits)
    bands = [slice(top, min(top + height, large[0])) for top in range(0, large[0], height)]
    space = Workspace(whole)
    with torch.no_grad():
        for band in bands:
            torch.testing.assert_close(up.up(logits, band, space, 'part'), whole[:, :, band])
            up.add_adjoint(found, gradient[:, :, band], band, space)
    torch.testing.assert_close(found, expected)


def test_a_band_looks_at_no_other_rows():
    logits = torch.zeros(1, 1, 8, 8)
    logits[:, :, 3:] = float('nan')
    up = Upsampling((8, 8), (64, 64), False, logits)
    assert up.up(logits, slice(0, 20), Workspace(logits), 'part').isfinite().all()


def test_a_workspace_gives_the_same_memory_again():
    space = Workspace(torch.zeros(1, dtype=torch.float64))
    first = space.tensor('a', 2, 3)
    assert first.shape == (2, 3) and first.dtype == torch.float64
    assert space.tensor('a', 3, 2).data_ptr() == first.data_ptr()
    assert space.tensor('a', 5).data_ptr() == first.data_ptr() != space.tensor('b', 2, 3).data_ptr()
    assert space.tensor('a', 7, 1).shape == (7, 1)
