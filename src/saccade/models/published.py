"""Published ImageNet-1k accuracies of common networks: what a network is worth before anything is known of the images.

Sources: timm's table of results on the ImageNet-1k validation images (``results/results-imagenet.csv`` of
huggingface/pytorch-image-models, at the commit 0173a139), each at the test size of its weights; for ``mobilenetv1_100``
and ``efficientnet_b0`` of the recipe ``ra4``, timm's README. Names without a tag are those of weights that timm does
not have: the figures of the TF-Slim models by Google. Percent, rounded to two places.
"""

from __future__ import annotations

from functools import cache

import timm

_TABLE = """
beit_base_patch16_224.in22k_ft_in22k_in1k 85.21
beit_base_patch16_384.in22k_ft_in22k_in1k 86.80
beit_large_patch16_224.in22k_ft_in22k_in1k 87.48
beit_large_patch16_384.in22k_ft_in22k_in1k 88.40
beit_large_patch16_512.in22k_ft_in22k_in1k 88.60
beitv2_base_patch16_224.in1k_ft_in22k_in1k 86.47
beitv2_base_patch16_224.in1k_ft_in1k 85.59
cait_xxs24_224.fb_dist_in1k 78.38
cait_s24_224.fb_dist_in1k 83.44
caformer_s18.sail_in22k_ft_in1k 84.08
caformer_s18.sail_in1k 83.66
coat_lite_mini.in1k 79.10
coat_lite_small.in1k 82.31
coatnet_0_rw_224.sw_in1k 82.39
coatnet_nano_rw_224.sw_in1k 81.70
convnext_atto.d2_in1k 77.01
convnext_femto.d1_in1k 78.72
convnext_pico.d1_in1k 80.41
convnext_nano.in12k_ft_in1k 82.86
convnext_nano.d1h_in1k 81.48
convnext_tiny.in12k_ft_in1k 84.45
convnext_tiny.in12k_ft_in1k_384 85.12
convnext_tiny.fb_in22k_ft_in1k 78.90
convnext_tiny.fb_in22k_ft_in1k_384 84.09
convnext_tiny.fb_in1k 82.70
convnext_small.in12k_ft_in1k 85.33
convnext_small.fb_in22k_ft_in1k 85.26
convnext_small.fb_in22k_ft_in1k_384 85.78
convnext_small.fb_in1k 83.70
convnext_base.fb_in22k_ft_in1k 86.27
convnext_base.clip_laion2b_augreg_ft_in12k_in1k 86.37
convnext_base.fb_in1k 84.43
convnext_large.fb_in22k_ft_in1k 87.03
convnext_large.fb_in1k 84.85
convnextv2_atto.fcmae_ft_in1k 77.76
convnextv2_femto.fcmae_ft_in1k 79.34
convnextv2_pico.fcmae_ft_in1k 81.09
convnextv2_nano.fcmae_ft_in22k_in1k 82.66
convnextv2_nano.fcmae_ft_in1k 82.49
convnextv2_tiny.fcmae_ft_in22k_in1k 84.42
convnextv2_tiny.fcmae_ft_in1k 83.46
convnextv2_base.fcmae_ft_in22k_in1k 87.00
convnextv2_base.fcmae_ft_in1k 85.47
crossvit_9_240.in1k 73.96
cspdarknet53.ra_in1k 80.06
darknet53.c2ns_in1k 80.54
deit_tiny_patch16_224.fb_in1k 72.17
deit_small_patch16_224.fb_in1k 79.84
deit_base_patch16_224.fb_in1k 81.99
deit_base_patch16_384.fb_in1k 83.11
deit_tiny_distilled_patch16_224.fb_in1k 74.50
deit_small_distilled_patch16_224.fb_in1k 81.22
deit_base_distilled_patch16_224.fb_in1k 83.39
deit3_small_patch16_224.fb_in22k_ft_in1k 83.07
deit3_small_patch16_224.fb_in1k 81.37
deit3_small_patch16_384.fb_in22k_ft_in1k 84.82
deit3_small_patch16_384.fb_in1k 83.43
deit3_medium_patch16_224.fb_in22k_ft_in1k 84.55
deit3_medium_patch16_224.fb_in1k 83.09
deit3_base_patch16_224.fb_in22k_ft_in1k 85.70
deit3_base_patch16_224.fb_in1k 83.79
deit3_base_patch16_384.fb_in22k_ft_in1k 86.74
deit3_base_patch16_384.fb_in1k 85.07
deit3_large_patch16_224.fb_in22k_ft_in1k 86.98
deit3_large_patch16_224.fb_in1k 84.78
densenet121.ra_in1k 76.50
densenet121.tv_in1k 74.76
densenet161.tv_in1k 77.36
densenet169.tv_in1k 75.90
densenet201.tv_in1k 77.29
dla34.in1k 74.64
dla46_c.in1k 64.87
dla46x_c.in1k 65.99
dla60.in1k 77.05
dla60x.in1k 78.24
dla60x_c.in1k 67.90
dla102.in1k 78.02
dla169.in1k 78.71
dpn68b.ra_in1k 79.36
edgenext_xx_small.in1k 71.88
edgenext_x_small.in1k 75.69
edgenext_small.usi_in1k 81.56
edgenext_base.in21k_ft_in1k 84.05
edgenext_base.usi_in1k 83.96
efficientformer_l1.snap_dist_in1k 80.50
efficientformerv2_s0.snap_dist_in1k 76.12
efficientformerv2_s1.snap_dist_in1k 79.69
efficientnet_b0.ra4_e3600_r224_in1k 78.58
efficientnet_b0.ra_in1k 77.69
efficientnet_b1.ft_in1k 78.80
efficientnet_b2.ra_in1k 80.61
efficientnet_b3.ra2_in1k 82.24
efficientnet_b4.ra2_in1k 83.41
efficientnet_b5.sw_in12k_ft_in1k 85.89
efficientnet_es.ra_in1k 78.05
efficientnet_em.ra2_in1k 79.24
efficientnet_el.ra_in1k 81.31
efficientnet_lite0.ra_in1k 75.48
efficientnetv2_rw_t.ra2_in1k 82.35
efficientnetv2_rw_s.ra2_in1k 83.81
efficientnetv2_rw_m.agc_in1k 84.81
ese_vovnet19b_dw.ra_in1k 77.74
ese_vovnet39b.ra_in1k 80.35
eva02_tiny_patch14_336.mim_in22k_ft_in1k 80.63
eva02_small_patch14_336.mim_in22k_ft_in1k 85.72
eva02_base_patch14_448.mim_in22k_ft_in22k_in1k 88.69
fbnetc_100.rmsp_in1k 75.13
fbnetv3_b.ra2_in1k 79.14
gcvit_xxtiny.in1k 79.73
ghostnet_100.in1k 73.98
hrnet_w18.ms_aug_in1k 78.13
hrnet_w18.ms_in1k 76.75
hrnet_w32.ms_in1k 78.44
hrnet_w48.ms_in1k 79.30
inception_resnet_v2.tf_in1k 80.46
inception_v3.tv_in1k 77.43
inception_v3.tf_in1k 77.86
inception_v4.tf_in1k 80.16
lcnet_050.ra2_in1k 63.12
lcnet_075.ra2_in1k 68.78
lcnet_100.ra2_in1k 72.10
levit_128s.fb_dist_in1k 76.53
levit_128.fb_dist_in1k 78.49
levit_192.fb_dist_in1k 79.84
levit_256.fb_dist_in1k 81.51
levit_384.fb_dist_in1k 82.60
maxvit_tiny_tf_224.in1k 83.40
maxvit_small_tf_224.in1k 84.43
mixer_b16_224.goog_in21k_ft_in1k 76.60
mixnet_s.ft_in1k 75.99
mixnet_m.ft_in1k 77.26
mixnet_l.ft_in1k 78.97
mnasnet_100.rmsp_in1k 74.65
mnasnet_small.lamb_in1k 66.20
mobilenetv1_100.ra4_e3600_r224_in1k 75.38
mobilenetv1_100 70.9
mobilenetv2_035 60.3
mobilenetv2_050.lamb_in1k 65.95
mobilenetv2_100.ra_in1k 72.98
mobilenetv2_100 71.8
mobilenetv2_110d.ra_in1k 75.06
mobilenetv2_120d.ra_in1k 77.30
mobilenetv2_140.ra_in1k 76.52
mobilenetv3_small_050.lamb_in1k 57.91
mobilenetv3_small_075.lamb_in1k 65.23
mobilenetv3_small_100.lamb_in1k 67.66
mobilenetv3_large_100.ra_in1k 75.77
mobilenetv3_large_100.miil_in21k_ft_in1k 77.92
mobilevit_xxs.cvnets_in1k 68.93
mobilevit_xs.cvnets_in1k 74.64
mobilevit_s.cvnets_in1k 78.31
mobilevitv2_050.cvnets_in1k 70.14
mobilevitv2_075.cvnets_in1k 75.61
mobilevitv2_100.cvnets_in1k 78.08
mobilevitv2_125.cvnets_in1k 79.68
mobilevitv2_150.cvnets_in1k 80.37
mobilevitv2_150.cvnets_in22k_ft_in1k 81.49
mobilevitv2_200.cvnets_in1k 81.13
mobilevitv2_200.cvnets_in22k_ft_in1k 82.33
mvitv2_tiny.fb_in1k 82.41
mvitv2_small.fb_in1k 83.77
nf_regnet_b1.ra2_in1k 79.31
nf_resnet50.ra2_in1k 80.64
pit_ti_224.in1k 72.91
pit_xs_224.in1k 78.18
pit_s_224.in1k 81.09
pit_b_224.in1k 82.44
poolformer_s12.sail_in1k 77.23
pvt_v2_b0.in1k 70.66
pvt_v2_b1.in1k 78.70
pvt_v2_b2.in1k 82.09
pvt_v2_b3.in1k 83.12
regnetx_002.pycls_in1k 68.75
regnetx_004.pycls_in1k 72.40
regnetx_006.pycls_in1k 73.87
regnetx_008.tv2_in1k 77.30
regnetx_008.pycls_in1k 75.03
regnetx_016.tv2_in1k 79.44
regnetx_016.pycls_in1k 76.92
regnetx_032.tv2_in1k 80.93
regnetx_032.pycls_in1k 78.17
regnety_002.pycls_in1k 70.28
regnety_004.tv2_in1k 75.60
regnety_004.pycls_in1k 74.03
regnety_006.pycls_in1k 75.27
regnety_008.pycls_in1k 76.30
regnety_016.tv2_in1k 80.67
regnety_016.pycls_in1k 77.86
regnety_032.ra_in1k 82.73
regnety_032.pycls_in1k 78.88
regnety_040.ra3_in1k 83.04
regnety_080.ra3_in1k 83.93
regnety_160.swag_ft_in1k 86.01
regnety_160.sw_in12k_ft_in1k 85.99
regnety_160.deit_in1k 83.69
repvgg_a2.rvgg_in1k 76.46
repvgg_b0.rvgg_in1k 75.14
res2net50_26w_4s.in1k 77.95
resmlp_12_224.fb_in1k 76.65
resmlp_24_224.fb_in1k 79.37
resnest14d.gluon_in1k 75.51
resnest26d.gluon_in1k 78.48
resnest50d.in1k 80.96
resnest101e.in1k 82.88
resnet10t.c3_in1k 68.36
resnet14t.c3_in1k 72.25
resnet18.a1_in1k 73.16
resnet18.fb_swsl_ig1b_ft_in1k 73.28
resnet18.fb_ssl_yfcc100m_ft_in1k 72.59
resnet18.gluon_in1k 70.84
resnet18.tv_in1k 69.76
resnet18d.ra2_in1k 73.79
resnet26.bt_in1k 76.37
resnet26d.bt_in1k 77.41
resnet34.a1_in1k 77.92
resnet34.gluon_in1k 74.58
resnet34d.ra2_in1k 78.44
resnet50.a1_in1k 81.21
resnet50.fb_swsl_ig1b_ft_in1k 81.18
resnet50.tv2_in1k 80.85
resnet50.fb_ssl_yfcc100m_ft_in1k 79.23
resnet50.gluon_in1k 77.58
resnet50.tv_in1k 76.13
resnet50d.a1_in1k 81.45
resnet50d.ra2_in1k 81.36
resnet50d.gluon_in1k 79.08
resnet101.a1h_in1k 82.78
resnet101.tv2_in1k 81.89
resnet101.tv_in1k 77.38
resnet101d.ra2_in1k 83.02
resnet152.a1h_in1k 83.45
resnet152.tv2_in1k 82.29
resnet152.tv_in1k 78.32
resnet152d.ra2_in1k 83.68
resnetv2_50.a1h_in1k 81.40
resnetv2_50x1_bit.goog_in21k_ft_in1k 80.34
resnetv2_50x1_bit.goog_distilled_in1k 82.82
resnetv2_101x1_bit.goog_in21k_ft_in1k 82.34
resnext50_32x4d.a1h_in1k 82.01
resnext50_32x4d.fb_swsl_ig1b_ft_in1k 82.17
resnext50_32x4d.tv_in1k 77.62
resnext101_32x8d.tv2_in1k 82.83
resnext101_32x8d.tv_in1k 79.31
resnext101_32x8d.fb_swsl_ig1b_ft_in1k 84.30
rexnet_100.nav_in1k 77.86
rexnet_150.nav_in1k 80.32
semnasnet_075.rmsp_in1k 72.99
semnasnet_100.rmsp_in1k 75.45
seresnet50.ra2_in1k 81.28
seresnet50.a1_in1k 81.10
seresnext50_32x4d.racm_in1k 82.20
skresnet18.ra_in1k 73.04
skresnet34.ra_in1k 76.91
spnasnet_100.rmsp_in1k 74.09
swin_tiny_patch4_window7_224.ms_in1k 81.38
swin_tiny_patch4_window7_224.ms_in22k_ft_in1k 80.97
swin_small_patch4_window7_224.ms_in22k_ft_in1k 83.30
swin_small_patch4_window7_224.ms_in1k 83.21
swin_base_patch4_window7_224.ms_in22k_ft_in1k 85.27
swin_base_patch4_window7_224.ms_in1k 83.61
swin_base_patch4_window12_384.ms_in22k_ft_in1k 86.44
swin_large_patch4_window7_224.ms_in22k_ft_in1k 86.31
swinv2_tiny_window8_256.ms_in1k 81.82
swinv2_tiny_window16_256.ms_in1k 82.80
swinv2_small_window16_256.ms_in1k 84.22
swinv2_base_window16_256.ms_in1k 84.60
swinv2_base_window12to24_192to384.ms_in22k_ft_in1k 87.10
tf_efficientnet_b0.ns_jft_in1k 78.67
tf_efficientnet_b0.aa_in1k 76.83
tf_efficientnet_b0.in1k 76.53
tf_efficientnet_b1.ns_jft_in1k 81.39
tf_efficientnet_b2.ns_jft_in1k 82.38
tf_efficientnet_b3.ns_jft_in1k 84.06
tf_efficientnet_b4.ns_jft_in1k 85.16
tf_efficientnet_b4.aa_in1k 83.02
tf_efficientnet_b5.ns_jft_in1k 86.09
tf_efficientnet_b6.ns_jft_in1k 86.46
tf_efficientnet_b7.ns_jft_in1k 86.84
tf_efficientnet_lite0.in1k 74.83
tf_efficientnetv2_b0.in1k 78.36
tf_efficientnetv2_b1.in1k 79.46
tf_efficientnetv2_b2.in1k 80.19
tf_efficientnetv2_b3.in21k_ft_in1k 82.67
tf_efficientnetv2_b3.in1k 81.97
tf_efficientnetv2_s.in21k_ft_in1k 84.29
tf_efficientnetv2_s.in1k 83.90
tf_efficientnetv2_m.in21k_ft_in1k 86.00
tf_efficientnetv2_m.in1k 85.20
tf_mobilenetv3_small_075.in1k 65.73
tf_mobilenetv3_small_100.in1k 67.92
tf_mobilenetv3_small_minimal_100.in1k 62.89
tf_mobilenetv3_large_075.in1k 73.43
tf_mobilenetv3_large_100.in1k 75.52
tf_mobilenetv3_large_minimal_100.in1k 72.26
tinynet_a.in1k 77.66
tinynet_c.in1k 71.24
tresnet_m.miil_in21k_ft_in1k 83.07
twins_pcpvt_small.in1k 81.10
twins_pcpvt_base.in1k 82.71
twins_svt_small.in1k 81.68
vgg11.tv_in1k 69.02
vgg16.tv_in1k 71.59
vgg16_bn.tv_in1k 73.37
vgg19.tv_in1k 72.38
vgg19_bn.tv_in1k 74.22
visformer_tiny.in1k 78.16
vit_tiny_patch16_224.augreg_in21k_ft_in1k 75.45
vit_tiny_patch16_384.augreg_in21k_ft_in1k 78.42
vit_small_patch32_224.augreg_in21k_ft_in1k 75.99
vit_small_patch16_224.augreg_in21k_ft_in1k 81.38
vit_small_patch16_224.augreg_in1k 78.85
vit_small_patch16_384.augreg_in21k_ft_in1k 83.80
vit_base_patch32_224.augreg_in21k_ft_in1k 80.72
vit_base_patch16_224.augreg2_in21k_ft_in1k 85.10
vit_base_patch16_224.augreg_in21k_ft_in1k 84.53
vit_base_patch16_224.augreg_in1k 79.15
vit_base_patch16_384.augreg_in21k_ft_in1k 86.00
vit_base_patch16_clip_224.laion2b_ft_in12k_in1k 86.17
vit_base_patch16_clip_224.openai_ft_in1k 85.29
vit_large_patch16_224.augreg_in21k_ft_in1k 85.83
vit_large_patch16_384.augreg_in21k_ft_in1k 87.08
volo_d1_224.sail_in1k 84.16
volo_d1_384.sail_in1k 85.24
volo_d2_224.sail_in1k 85.20
volo_d3_448.sail_in1k 86.50
volo_d4_448.sail_in1k 86.79
volo_d5_448.sail_in1k 86.95
volo_d5_512.sail_in1k 87.06
wide_resnet50_2.racm_in1k 82.28
wide_resnet50_2.tv_in1k 78.48
xcit_nano_12_p16_224.fb_dist_in1k 72.31
xcit_nano_12_p16_224.fb_in1k 69.96
xcit_nano_12_p8_224.fb_dist_in1k 76.33
xcit_nano_12_p8_224.fb_in1k 73.92
xcit_nano_12_p8_384.fb_dist_in1k 77.82
xcit_tiny_12_p16_224.fb_dist_in1k 78.57
xcit_tiny_12_p16_224.fb_in1k 77.14
xcit_tiny_12_p8_224.fb_dist_in1k 81.21
xcit_tiny_12_p8_224.fb_in1k 79.69
xcit_tiny_12_p8_384.fb_dist_in1k 82.39
xcit_tiny_24_p8_384.fb_dist_in1k 83.75
xcit_small_12_p8_384.fb_dist_in1k 85.08
xcit_small_12_p16_224.fb_dist_in1k 83.33
xcit_small_12_p16_224.fb_in1k 81.97
xception65.ra3_in1k 83.18
"""

PUBLISHED_TOP1: dict[str, float] = {
    name: round(float(percent) / 100, 4) for name, percent in (line.split() for line in _TABLE.split("\n") if line)
}
"""Top-1 accuracy, 0 to 1, by timm's name, with the tag of the weights where timm has them."""


@cache
def published_top1(architecture: str, tag: str | None = None) -> float | None:
    """Return the published accuracy of a network, 0 to 1; None where this table does not have it.

    Parameters
    ----------
    architecture : str
        timm's name without a tag.
    tag : str or None
        The tag of its weights. Where nothing was published of these weights, and without a tag, the figure is the
        architecture's: of the weights that are timm's default, or of others.

    Examples
    --------
    >>> published_top1("resnet18", "tv_in1k"), published_top1("resnet18")
    (0.6976, 0.7316)
    """
    config = timm.models.get_pretrained_cfg(architecture)
    default = config.tag if config is not None else None
    names = [f"{architecture}.{default}", architecture]
    if tag is not None:
        # Weights of another origin are nearer to the original ones than to the longest training since.
        names = [f"{architecture}.{tag}", *reversed(names)]
    others = [name for name in PUBLISHED_TOP1 if name.partition(".")[0] == architecture]
    return next((PUBLISHED_TOP1[name] for name in [*names, *others] if name in PUBLISHED_TOP1), None)
