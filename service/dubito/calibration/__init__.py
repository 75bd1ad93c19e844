"""What is fitted on held-out rows, so that the figures keep their promises.

Flow: samples and truths → `fit` (splits, `scaling` or `noise`, `conformal` scores of `sets` or
`intervals`, `ood` scores, `report`) → `record.Calibration`, which is kept with the version and
applied to predictions. numpy, scipy and scikit-learn; torch only where `scaling` computes as the
engine does. No HTTP, no database.
"""
