"""What is fitted on held-out rows, so that the figures keep their promises.

Flow: samples and truths → `fit` (splits, `temperature` or `noise`, `conformal` scores, `ood`
scores, `report`) → `record.Calibration`, which is kept with the version and applied to predictions.
Pure numpy, scipy and scikit-learn: no HTTP, no database, no torch.
"""
