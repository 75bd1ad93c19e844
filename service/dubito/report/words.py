"""What a reader is told of each figure, in the order and groups of the page."""

from __future__ import annotations

GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "Right and likely": {
        "accuracy": ("accuracy", "share of rows, labels or positions whose likely class is right"),
        "subset_accuracy": ("subset accuracy", "share of rows whose labels are all right"),
        "mean_iou": ("mean IoU", "overlap of predicted and true positions, mean over classes"),
        "rmse": ("RMSE", "root mean squared error, in target units"),
        "nll": ("NLL", "negative log-likelihood of the truth, in nats; lower is better"),
        "brier": ("Brier score", "squared distance of probabilities and truth, 0 to 2"),
        "pinball": (
            "pinball loss",
            "of the quantiles, mean over levels, in target units; lower is better",
        ),
        "crps": ("CRPS", "distance of predicted and true distribution, in target units"),
    },
    "Confidence": {
        "ece": ("ECE", "confidence against accuracy, 15 bins of equal width over [0, 1]"),
        "adaptive_ece": ("adaptive ECE", "the same with 15 bins of equally many rows"),
        "classwise_ece": ("classwise ECE", "the same for each class's probability, averaged"),
    },
    "Leaving out the uncertain": {
        "aurc": ("AURC", "mean error rate of the most confident rows, over all shares of them"),
        "e_aurc": ("E-AURC", "AURC above that of the best order; 0 is best"),
        "ause": ("AUSE", "error left above that of the best order; 0 is best"),
    },
    "Sets and intervals": {
        "set_coverage": ("coverage of sets", "share of sets that hold the truth"),
        "set_size": ("size of sets", "mean number of classes"),
        "empty_sets": ("empty sets", "share of sets without any class"),
        "interval_coverage": (
            "coverage of intervals",
            "share of targets inside, or of rows with enough positions inside",
        ),
        "position_coverage": ("coverage of positions", "share of positions whose truth is inside"),
        "interval_width": ("width of intervals", "mean, in target units"),
        "interval_score": (
            "interval score",
            "width and a fine for what is missed; lower is better",
        ),
    },
    "Out-of-distribution rows": {
        "ood_flag_rate": ("flagged", "share of the labelled rows that are flagged, falsely"),
        "ood_auroc": ("AUROC", "chance that such a row scores above a labelled one"),
        "ood_aupr": ("AUPR", "average precision, such rows positive"),
        "ood_fpr95": (
            "FPR at 95 %",
            "labelled rows above a threshold that finds 95 % of such rows",
        ),
    },
}

PICTURES: dict[str, tuple[str, str]] = {
    "reliability": (
        "Reliability",
        "Accuracy of the rows in each bin of confidence, with its 95 % interval (Wilson), and how"
        " many rows there are. On the dotted line confidence is right; below it the network is too"
        " sure.",
    ),
    "risk_coverage": (
        "Risk and coverage",
        "Error rate once only the most confident rows are answered. A curve that falls to the left"
        " says that confidence knows where the errors are.",
    ),
    "coverage": (
        "Nominal and empirical coverage",
        "Share of targets inside the central interval of the predicted mixture at each level, all"
        " outputs together; and how often each quantile was met, which is flat where the mixture is"
        " right, a cup where it is too narrow, a hill where it is too wide.",
    ),
    "levels": (
        "Levels of the quantiles",
        "Share of targets at or below the quantile of each level, all outputs together. On the"
        " dotted line quantiles are right; below it they are too low.",
    ),
    "sparsification": (
        "Sparsification",
        "Error that is left once the rows of largest predicted variance are left out, against the"
        " best order there is.",
    ),
    "scores": (
        "Out-of-distribution score",
        "Scores of the labelled rows, of out-of-distribution rows where they were given, and the"
        " threshold of the flag. The outermost bins hold what lies beyond them too.",
    ),
}


def known() -> set[str]:
    """Names of all figures that have words."""
    return {name for group in GROUPS.values() for name in group}
