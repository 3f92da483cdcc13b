from __future__ import annotations

import saccade
import saccade.vision


def test_the_old_path_leads_to_the_same_classes():
    assert saccade.vision.ImagePredictor is saccade.ImagePredictor
    assert saccade.vision.ImageDataset is saccade.ImageDataset
