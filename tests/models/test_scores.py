"""Log-probabilities of query-based networks, by hand and against the prediction."""
import pytest
import torch

from mmseg_hrhf.models.heads import log_probability, query_log_probability


def test_scores_by_hand():
    # .3 and .1 of .4; a class that no query claims counts as a millionth.
    scores = torch.tensor([.3, .1, 0.]).view(1, 3, 1, 1)
    expected = torch.tensor([.75, .25, 2.5e-6])
    torch.testing.assert_close(log_probability(scores).exp().flatten(), expected, atol=1e-6, rtol=1e-4)


def test_softmax_gives_the_normalised_scores_back():
    scores = torch.rand(2, 4, 3, 3) * 50
    torch.testing.assert_close(log_probability(scores).softmax(1), scores / scores.sum(1, keepdim=True))


def test_a_class_without_any_score_has_a_finite_gradient():
    scores = torch.zeros(1, 2, 1, 1, requires_grad=True)
    log_probability(scores).sum().backward()
    assert scores.grad.isfinite().all()


def test_half_precision_is_left():
    assert log_probability(torch.rand(1, 2, 1, 1).bfloat16()).dtype == torch.float32


def test_gradcheck():
    assert torch.autograd.gradcheck(log_probability, torch.rand(1, 3, 2, 2, dtype=torch.float64, requires_grad=True))


class Target:
    masks = torch.zeros(0, 6, 6)


def test_queries_by_hand():
    # Two queries, two classes. Query 0: class 0 with .5, no-object .5, mask everywhere. Query 1: class 1, no mask (.5).
    classes = torch.tensor([[[.5, 1e-9, .5], [1e-9, 1., 1e-9]]]).log()
    masks = torch.stack([torch.full((3, 3), 50.), torch.zeros(3, 3)])[None]
    out = query_log_probability(classes, masks, [Target]).exp()
    assert out.shape == (1, 2, 6, 6)
    torch.testing.assert_close(out[0, :, 0, 0], torch.tensor([.5, .5]))


@pytest.mark.parametrize('name', ['MaskFormerHead', 'Mask2FormerHead'])
def test_student_s_log_probabilities_are_the_prediction_s(name):
    pytest.importorskip('mmdet', reason='query-based heads need mmdetection')
    import mmseg.models.decode_heads as heads

    from mmseg_hrhf.models.heads import main_logits
    head_class = getattr(heads, name)
    classes, masks = [torch.randn(2, 5, 4)], [torch.randn(2, 5, 3, 3)]
    head = type(name, (head_class, ), dict(__init__=torch.nn.Module.__init__,
                                           forward=lambda self, *args: (classes, masks)))()
    head.align_corners = False
    metas = [dict(img_shape=(6, 6), pad_shape=(6, 6))] * 2
    predicted = log_probability(head.predict([], metas, {}))
    torch.testing.assert_close(main_logits(head, classes, masks, [Target]), predicted)
