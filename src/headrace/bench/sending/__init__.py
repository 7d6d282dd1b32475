"""Sends a load from worker processes, on time, and fills a record per request."""
