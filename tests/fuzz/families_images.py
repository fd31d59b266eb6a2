"""Ops about boxes in images, and what they must give."""

from __future__ import annotations

from typing import Any

import numpy as np
from test_reduction import far_from_all, overlap, suppress
from test_resize import linear

from .maker import Maker, Refused, family
from .reference import own


@family("crop_resize")
def crop_resize(g: Maker, op: str) -> None:
    """Boxes whose corners are pixels, and points between them: what lies outside has tests of its own."""
    x = g.pick("f", 4, 4)
    n, _, height, width = g.dims(x)
    if n > 1 and g.graph.opset < "iOS17":  # its results have an axis of the images, and nobody says what is there
        raise Refused
    count = g.int(1, 3)
    rows, columns = (np.sort(g.rng.integers(0, size, (count, 2)), 1) for size in (height, width))
    boxes = np.stack([rows[:, 0], columns[:, 0], rows[:, 1], columns[:, 1]], 1)
    images = g.rng.integers(0, n, count)
    common = {"target_height": g.int(2, 5), "target_width": g.int(2, 5), "sampling_mode": "STRICT_ALIGN_CORNERS"}
    floats = np.float16 if g.dtype(x) == "fp16" else np.float32
    if g.graph.opset >= "iOS17":
        g.emit(op, x=x, boxes=boxes.astype(floats), box_indices=images.astype(np.int32), **common)
    else:
        roi = np.concatenate([images[:, None], boxes], 1).astype(floats).reshape(count, 1, 5, 1, 1)
        g.emit(op, x=x, roi=roi, **common)


@own("crop_resize")
def cropped(op, x, target_height, target_width, sampling_mode, boxes=None, box_indices=None, roi=None):
    if roi is not None:
        box_indices, boxes = roi.reshape(-1, 5)[:, 0], roi.reshape(-1, 5)[:, 1:]
    results = []
    for image, (top, left, bottom, right) in zip(box_indices.astype(int), np.rint(boxes).astype(int), strict=True):
        inside = x[image : image + 1, :, top : bottom + 1, left : right + 1]
        results.append(linear(inside, (target_height, target_width), sampling_mode))
    whole = np.concatenate(results)
    return whole if roi is None else whole[:, None]


@family("non_maximum_suppression")
def non_maximum_suppression(g: Maker, op: str) -> None:
    batch, boxes, classes = g.int(1, 2), g.int(1, 20), g.int(1, 3)
    if g.wild:
        raise Refused
    where = g.array((batch, boxes, 4), None, 1, 50)
    doubles = where.astype(np.float64)
    iou = far_from_all(overlap(doubles[:, :, None], doubles[:, None]).ravel(), 0.2, 0.6)
    scores = g.rng.permutation(np.linspace(-1, 1, batch * boxes * classes)).reshape(batch, boxes, classes)
    common: dict[str, Any] = {"iou_threshold": iou, "max_boxes": g.int(1, 25), "per_class_suppression": g.chance(0.5)}
    given = {"boxes": where, "scores": scores.astype(where.dtype)}
    if g.graph.opset >= "iOS17":
        given = {name: np.ascontiguousarray(array.transpose(0, 2, 1)) for name, array in given.items()}
    else:
        common["score_threshold"] = -9.0
    refs = {}
    for name, array in given.items():
        refs[name] = g.fresh(array.shape)
        g.graph.inputs[refs[name].name] = array
        g._know(refs[name].name, array, g.floating)
    g.emit(op, **refs, **common)


@own("non_maximum_suppression")
def suppressed(op, boxes, scores, iou_threshold, max_boxes, per_class_suppression, score_threshold=None):
    new = score_threshold is None
    if new:
        boxes, scores = boxes.transpose(0, 2, 1), scores.transpose(0, 2, 1)
    batch, _, classes = scores.shape
    found = [np.zeros((batch, max_boxes, 4)), np.zeros((batch, max_boxes, classes)),
             np.full((batch, max_boxes), -1, np.int32), np.zeros(batch, np.int32)]  # fmt: skip
    least = -np.inf if new else score_threshold
    for n in range(batch):
        kept = suppress(boxes[n], scores[n], iou_threshold, least, max_boxes, per_class_suppression)
        found[0][n, : len(kept)], found[1][n, : len(kept)] = boxes[n, kept], scores[n, kept]
        found[2][n, : len(kept)], found[3][n] = kept, len(kept)
    if new:
        return found[0].transpose(0, 2, 1), found[1].transpose(0, 2, 1), found[2]
    return tuple(found)
