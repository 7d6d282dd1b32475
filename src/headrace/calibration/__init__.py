"""Measures one engine by designed experiments, for the latency model that everything else uses.

identify (replica) ─► ladder: how fast is it? ─► design ─► rounds of experiments ─► points
"""
