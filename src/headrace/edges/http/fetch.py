"""Small bounded requests to engines: health, models, metrics."""
