"""From records to figures: percentiles, targets, confidence and a verdict."""
