"""Alpha-IoU YOLO: a one-stage detector whose boxes are trained with power IoU losses."""

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
