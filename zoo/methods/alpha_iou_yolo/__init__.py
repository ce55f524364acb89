"""Alpha-IoU YOLO: a one-stage detector whose boxes are trained with power IoU losses.

He, Erfani, Ma, Bailey, Chi, Hua: "Alpha-IoU: A Family of Power Intersection over Union Losses for Bounding Box
Regression", NeurIPS 2021, arXiv 2110.13675. With `I` the IoU of a predicted and a true box:

    L_box = 1 - I^alpha (+ penalty^alpha for giou, diou, ciou)                  -> alpha_iou_loss
    t     = s^0.5 u^6,  s the score of the object's class, u = I                -> task-aligned assignment (TOOD)
    L     = 0.5 BCE(class logits, q) / N + 5 sum_i q_i L_box_i / N,  N = sum q  -> AlphaIoUYOLO.loss
    q_i   = t_i / max t * max u over the positives of an object

The losses are the paper's. The paper trained YOLOv5 and Faster R-CNN; this detector is the zoo's own (anchor-free, no
objectness branch, no second box loss), so that the box loss is the only thing a comparison of losses changes.
"""

from zoo.methods.alpha_iou_yolo.module import (
    KINDS,
    SIZES,
    AlphaIoUYOLO,
    Assignment,
    DetectorNetwork,
    Targets,
    alpha_iou_loss,
    anchor_points,
    assign,
    decode,
    pairwise_iou,
)

__all__ = [
    "KINDS",
    "SIZES",
    "AlphaIoUYOLO",
    "Assignment",
    "DetectorNetwork",
    "Targets",
    "alpha_iou_loss",
    "anchor_points",
    "assign",
    "decode",
    "pairwise_iou",
]
