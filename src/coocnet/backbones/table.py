"""The table of backbones: one entry makes a network usable everywhere."""

from __future__ import annotations

from coocnet.backbones.mini import MINI
from coocnet.backbones.mobilenetv2 import MOBILENETV2
from coocnet.backbones.record import Backbone
from coocnet.backbones.resnet import RESNET50, RESNET101
from coocnet.backbones.resnetv2 import RESNET101V2
from coocnet.backbones.squeezenet import SQUEEZENET11
from coocnet.backbones.vgg import VGG16

BACKBONES: dict[str, Backbone] = {
    "mini": MINI,
    "vgg16": VGG16,
    "resnet50": RESNET50,
    "resnet101": RESNET101,
    "resnet101v2": RESNET101V2,
    "mobilenetv2": MOBILENETV2,
    "squeezenet1_1": SQUEEZENET11,
}
