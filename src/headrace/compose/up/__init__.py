"""`headrace up`: engines on this machine and the gateway in front, in one command."""
