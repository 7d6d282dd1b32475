"""The endpoint that is measured: found, asked for its model, its requests sized and written."""
