"""What a command has of the process it runs in: terminal, files, signals, descriptors."""
