"""What is fitted on held-out rows, so that the figures keep their promises.

Flow: samples and truths → `fit` (`splits`, `scaling`, `promises`, scores of `flags`,
`dubito.report`) → `record.Calibration`, which is kept with the version and applied to predictions;
`verdict` tells whether a fit is worth having, `evaluate` judges without fitting. numpy, scipy and
scikit-learn; torch only where scales are applied as the engine does. No HTTP, no database.
"""
