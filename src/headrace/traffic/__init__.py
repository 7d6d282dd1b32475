"""What arrives: traces and their formats, arrival processes, generated traffic. Pure."""
