"""The names that GluonCV's model zoo gave to networks, and what timm has for them: only data.

`ALIASES` maps an old name to the timm architecture that is the same published network. Small differences
between the two code bases that leave the layout alone (a bias in the classifier, how channel numbers are
rounded, ReLU or ReLU6 in MobileNet v1) do not count. `UNAVAILABLE` maps the names whose network timm does not
have to networks near them.

Names that both libraries spell alike (``densenet121``, ``vgg16_bn``, ``resnext50_32x4d``, ``senet154``,
``darknet53``, ``dla34``, ``efficientnet_b0`` ...) need no entry.
"""

from __future__ import annotations

__all__ = ["ALIASES", "UNAVAILABLE"]

ALIASES: dict[str, str] = {
    # v1 and v1b differ in where a bottleneck block has its stride: v1 in the first 1x1 convolution, v1b in
    # the 3x3 one, as torchvision and timm have it. Nets of 18 and 34 layers have no bottlenecks, so both are
    # timm's.
    "resnet18_v1": "resnet18",
    "resnet34_v1": "resnet34",
    "resnet18_v1b": "resnet18",
    "resnet34_v1b": "resnet34",
    "resnet50_v1b": "resnet50",
    "resnet101_v1b": "resnet101",
    "resnet152_v1b": "resnet152",
    "resnet50_v1b_gn": "resnet50_gn",
    # v1c: a stem of three 3x3 convolutions. v1d: also average pooling in the shortcut. v1s: v1c with a stem
    # twice as wide. timm's ports of GluonCV's own weights (tag gluon_in1k) confirm the pairs.
    "resnet50_v1c": "resnet50c",
    "resnet101_v1c": "resnet101c",
    "resnet152_v1c": "resnet152c",
    "resnet50_v1d": "resnet50d",
    "resnet101_v1d": "resnet101d",
    "resnet152_v1d": "resnet152d",
    "resnet50_v1s": "resnet50s",
    "resnet101_v1s": "resnet101s",
    "resnet152_v1s": "resnet152s",
    # Squeeze-and-excitation: the basic-block nets as above, the ResNeXts with the stride in the 3x3
    # convolution.
    "se_resnet18_v1": "seresnet18",
    "se_resnet34_v1": "seresnet34",
    "se_resnext50_32x4d": "seresnext50_32x4d",
    "se_resnext101_32x4d": "seresnext101_32x4d",
    "se_resnext101_64x4d": "seresnext101_64x4d",
    "senet_154": "senet154",
    # Split attention. timm spells the stem out: d is 32 channels wide, e is 64.
    "resnest14": "resnest14d",
    "resnest26": "resnest26d",
    "resnest50": "resnest50d",
    "resnest101": "resnest101e",
    "resnest200": "resnest200e",
    "resnest269": "resnest269e",
    # Width multipliers: timm writes them in hundredths.
    "mobilenet1.0": "mobilenetv1_100",
    "mobilenetv2_1.0": "mobilenetv2_100",
    "mobilenetv2_0.75": "mobilenetv2_075",
    "mobilenetv2_0.5": "mobilenetv2_050",
    "mobilenetv3_large": "mobilenetv3_large_100",
    "mobilenetv3_small": "mobilenetv3_small_100",
    # The same widths as constructor functions and torchvision spell them.
    "mobilenet1_0": "mobilenetv1_100",
    "mobilenet_v2": "mobilenetv2_100",
    "mobilenet_v2_1_0": "mobilenetv2_100",
    "mobilenet_v2_0_75": "mobilenetv2_075",
    "mobilenet_v2_0_5": "mobilenetv2_050",
    "mobilenet_v3_large": "mobilenetv3_large_100",
    "mobilenet_v3_small": "mobilenetv3_small_100",
    # c is for classification.
    "hrnet_w18_c": "hrnet_w18",
    "hrnet_w18_small_v1_c": "hrnet_w18_small",
    "hrnet_w18_small_v2_c": "hrnet_w18_small_v2",
    "hrnet_w30_c": "hrnet_w30",
    "hrnet_w32_c": "hrnet_w32",
    "hrnet_w40_c": "hrnet_w40",
    "hrnet_w44_c": "hrnet_w44",
    "hrnet_w48_c": "hrnet_w48",
    "hrnet_w64_c": "hrnet_w64",
    "inceptionv3": "inception_v3",
    # GluonCV's Xception is the aligned one of DeepLab with 65 layers, not Chollet's (timm: legacy_xception).
    "xception": "xception65",
    # NASNet-A (6 @ 4032) is the large one.
    "nasnet_6_4032": "nasnetalarge",
}

UNAVAILABLE: dict[str, tuple[str, ...]] = {
    # Bottlenecks with the stride in the first 1x1 convolution.
    "resnet50_v1": ("resnet50", "resnet50c", "resnet50d"),
    "resnet101_v1": ("resnet101", "resnet101c", "resnet101d"),
    "resnet152_v1": ("resnet152", "resnet152c", "resnet152d"),
    "se_resnet50_v1": ("seresnet50", "legacy_seresnet50"),
    "se_resnet101_v1": ("seresnet101", "legacy_seresnet101"),
    "se_resnet152_v1": ("seresnet152", "legacy_seresnet152"),
    # A wide deep stem together with average pooling in the shortcut.
    "resnet50_v1e": ("resnet50d", "resnet50s"),
    "resnet101_v1e": ("resnet101d", "resnet101s"),
    "resnet152_v1e": ("resnet152d", "resnet152s"),
    "resnet101_v1b_gn": ("resnet101", "resnet50_gn"),
    # Pre-activation nets: GluonCV's normalise the input and the output of the stem, timm's do not.
    "resnet18_v2": ("resnetv2_18", "resnet18"),
    "resnet34_v2": ("resnetv2_34", "resnet34"),
    "resnet50_v2": ("resnetv2_50", "resnet50"),
    "resnet101_v2": ("resnetv2_101", "resnet101"),
    "resnet152_v2": ("resnetv2_152", "resnet152"),
    "se_resnet18_v2": ("seresnet18", "resnetv2_18"),
    "se_resnet34_v2": ("seresnet34", "resnetv2_34"),
    "se_resnet50_v2": ("seresnet50", "resnetv2_50"),
    "se_resnet101_v2": ("seresnet101", "resnetv2_101"),
    "se_resnet152_v2": ("seresnet152", "resnetv2_152"),
    # A deep stem on ResNeXt and SENet.
    "resnext101b_64x4d": ("resnext101_64x4d",),
    "resnext101e_64x4d": ("resnext101_64x4d",),
    "se_resnext101e_64x4d": ("seresnext101_64x4d",),
    "senet_154e": ("senet154",),
    # Pruned and quantised nets.
    "resnet18_v1b_0.89": ("resnet18",),
    "resnet50_v1d_0.86": ("resnet50d",),
    "resnet50_v1d_0.48": ("resnet50d", "resnet34d"),
    "resnet50_v1d_0.37": ("resnet26d", "resnet34d"),
    "resnet50_v1d_0.11": ("resnet10t", "resnet18d"),
    "resnet101_v1d_0.76": ("resnet101d",),
    "resnet101_v1d_0.73": ("resnet101d",),
    "resnet50_v1_int8": ("resnet50",),
    "mobilenet1.0_int8": ("mobilenetv1_100",),
    # Widths that timm does not have.
    "mobilenet0.75": ("mobilenetv1_100", "mobilenetv2_075"),
    "mobilenet0.5": ("mobilenetv2_050", "mobilenetv3_small_050"),
    "mobilenet0.25": ("mobilenetv2_035", "lcnet_035"),
    "mobilenetv2_0.25": ("mobilenetv2_035", "mobilenetv3_small_050"),
    # Families that timm does not have.
    "alexnet": ("vgg11", "resnet18"),
    "googlenet": ("inception_v3", "inception_v4"),
    "squeezenet1.0": ("mobilenetv3_small_050", "lcnet_050"),
    "squeezenet1.1": ("mobilenetv3_small_050", "lcnet_050"),
    "nasnet_4_1056": ("mnasnet_100", "nasnetalarge"),
    "nasnet_5_1538": ("nasnetalarge", "pnasnet5large"),
    "nasnet_7_1920": ("nasnetalarge", "pnasnet5large"),
    "residualattentionnet56": ("seresnet50", "skresnet34"),
    "residualattentionnet92": ("seresnet50", "seresnet101"),
    "residualattentionnet128": ("seresnet101",),
    "residualattentionnet164": ("seresnet101", "seresnet152"),
    "residualattentionnet200": ("seresnet152",),
    "residualattentionnet236": ("seresnet152",),
    "residualattentionnet452": ("seresnet200d", "seresnet269d"),
    # Nets for 32-pixel images; other nets take such images when they are enlarged.
    "cifar_resnet20_v1": ("resnet10t", "resnet18"),
    "cifar_resnet56_v1": ("resnet18", "resnet26"),
    "cifar_resnet110_v1": ("resnet34", "resnet50"),
    "cifar_resnet20_v2": ("resnet10t", "resnetv2_18"),
    "cifar_resnet56_v2": ("resnetv2_18", "resnet26"),
    "cifar_resnet110_v2": ("resnetv2_34", "resnetv2_50"),
    "cifar_wideresnet16_10": ("resnet18", "wide_resnet50_2"),
    "cifar_wideresnet28_10": ("wide_resnet50_2",),
    "cifar_wideresnet40_8": ("wide_resnet50_2",),
    "cifar_resnext29_32x4d": ("resnext26ts", "resnext50_32x4d"),
    "cifar_resnext29_16x64d": ("resnext50_32x4d", "resnext101_64x4d"),
    "cifar_residualattentionnet56": ("seresnet18", "seresnet34"),
    "cifar_residualattentionnet92": ("seresnet34", "seresnet50"),
    "cifar_residualattentionnet452": ("seresnet101", "seresnet152"),
}
