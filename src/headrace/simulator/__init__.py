"""The decision core on a virtual clock: a trace against modelled engines, policies side by side.

The dispatcher is the gateway's own, and it hears only what a gateway hears: its dispatches, relayed
tokens, usage, and metrics scraped with a lag. `driver` plays a run, `results` scores it, `runs`
plays several policies at once, `report` draws them.
"""
